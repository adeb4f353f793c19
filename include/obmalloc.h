/* obmalloc: an allocator that takes the place of CPython's.
 *
 * Made from the sources by cbindgen; do not edit (`make header`).
 *
 * C1  A pointer given back to a function is NULL or came from a function of
 *     the same domain, and was not given back before. The domains MEM
 *     (PyMem_*) and OBJ (PyObject_*) are one allocator: each takes the other's
 *     blocks, and takes blocks of the C library's malloc, which it hands on to
 *     the C library.
 * C2  A block is not used after it was given back, nor beyond the size asked.
 *     What is written into a free block damages no structure of the library.
 * C3  In a process with a CPython, MEM and OBJ are called as that CPython
 *     demands (with the GIL); in a process without, from any thread. The
 *     domain RAW (PyMem_Raw*) is called from any thread in both.
 * C4  A block may be given back by another thread than the one that got it,
 *     while threads end, in fork handlers, and in a forked child.
 *
 * A request that cannot be served gives NULL: for want of memory, beyond a hard
 * limit, or above PY_SSIZE_T_MAX. In a process without a CPython errno is ENOMEM
 * then, as with malloc. In a process with one it may be so; that CPython's own
 * functions promise nothing about errno, and what was set in their place decides.
 *
 * A block that is given back twice, or at an address where no block begins,
 * ends the process with one line on stderr when the library notices, which is
 * some frees later; with OBMALLOC_ON_ERROR=report it is left out, and the
 * program goes on.
 *
 * In a process with a CPython all these names do what that CPython's own
 * functions of the same name do.
 */

#ifndef OBMALLOC_H
#define OBMALLOC_H


#include <stddef.h>

/*
 Deprecated: OBMALLOC_OK.
 */
#define OBMALLOC_ACTIVE 0

/*
 Deprecated: OBMALLOC_ERR_NO_HOST.
 */
#define OBMALLOC_NO_HOST 1

/*
 Deprecated: OBMALLOC_ERR_UNSUPPORTED.
 */
#define OBMALLOC_UNSUPPORTED 2

/*
 Deprecated: OBMALLOC_ERR_FREE_THREADED.
 */
#define OBMALLOC_FREE_THREADED 3

/*
 Deprecated: OBMALLOC_ERR_USER_CHOICE.
 */
#define OBMALLOC_CHOSEN 4

/*
 Deprecated: OBMALLOC_ERR_OTHER_ALLOCATOR.
 */
#define OBMALLOC_OTHER_ALLOCATOR 5

/*
 Deprecated: OBMALLOC_ERR_TRACING.
 */
#define OBMALLOC_TRACING 6

/*
 Deprecated: OBMALLOC_ERR_NOT_INTERPOSABLE.
 */
#define OBMALLOC_NO_WAY_IN 7

/*
 Deprecated: OBMALLOC_ERR_NO_GIL.
 */
#define OBMALLOC_NO_GIL 8

/*
 Deprecated: OBMALLOC_ERR_SERVES_ANOTHER.
 */
#define OBMALLOC_SERVES_ANOTHER 9

/*
 In `flags` of `obmalloc_snapshot_with`: with the types of CPython's objects.
 */
#define OBMALLOC_SNAPSHOT_TYPES 1

/*
 What `obmalloc_install` returns: 0 if the library serves the process, else why not.
 */
typedef enum obmalloc_error {
  /*
   The library serves this process.
   */
  OBMALLOC_OK = 0,
  /*
   There is no CPython in this process.
   */
  OBMALLOC_ERR_NO_HOST = 1,
  /*
   This version of CPython is not served.
   */
  OBMALLOC_ERR_UNSUPPORTED = 2,
  /*
   This CPython is built without a GIL.
   */
  OBMALLOC_ERR_FREE_THREADED = 3,
  /*
   PYTHONMALLOC or the development mode chooses another allocator.
   */
  OBMALLOC_ERR_USER_CHOICE = 4,
  /*
   Another allocator is installed already.
   */
  OBMALLOC_ERR_OTHER_ALLOCATOR = 5,
  /*
   tracemalloc is tracing; stop it first.
   */
  OBMALLOC_ERR_TRACING = 6,
  /*
   The host's calls cannot be made to reach the library: it has no tables of
   allocators, or is a 2.7 that was not preloaded.
   */
  OBMALLOC_ERR_NOT_INTERPOSABLE = 7,
  /*
   The calling thread does not hold the GIL.
   */
  OBMALLOC_ERR_NO_GIL = 8,
  /*
   Another CPython of this process is served already.
   */
  OBMALLOC_ERR_SERVES_ANOTHER = 9,
} obmalloc_error;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The library's version, such as "0.1.0". Lives as long as the process.
 */
const char *obmalloc_version(void);

/*
 Installs the library in the CPython of this process (3.6 and later), whether it existed at
 the start or was loaded later, and whether it runs or not. Blocks of its own allocator
 are freed to that allocator.

 If the interpreter runs, the caller holds the GIL: from Python by `ctypes.PyDLL(...)`, not
 `CDLL`. With several CPythons in the process, the one whose GIL the calling thread holds is
 served; one of them can be. Returns an `obmalloc_error`: OBMALLOC_OK (0) if the library
 serves the process now, else the reason; then nothing has changed. May be called again.
 */
int obmalloc_install(void);

/*
 Writes the statistics of the heap as JSON to `buffer`: at most `size` bytes, the last of
 them NUL. Returns the length of the whole text without NUL, as snprintf does: the text is
 complete if that is less than `size`. `buffer` may be NULL if `size` is 0. Allocates
 nothing; if another thread calls it at the same time, it maps 8 KiB for the duration, and
 returns 0 if that fails. Any thread may call it, without the GIL; while other threads
 allocate, the numbers of different size classes are of different moments.
 */
size_t obmalloc_stats_json(char *buffer, size_t size);

/*
 Returns free memory to the kernel, page by page, until at most `keep` free bytes are
 resident. Returns the number of bytes returned. Any thread may call it, without the GIL.
 Its time grows with the heap and with the memory that is returned, some 10 microseconds
 for a pool of 64 KiB (benchmark `lock_time`); it delays other threads at most for the
 pages of one pool. Free blocks in the magazines of other threads stay there.
 */
size_t obmalloc_trim(size_t keep);

/*
 Writes a snapshot of the heap, with the content of each page and the types of CPython's
 objects, to the file at `path`, for `obmalloc map`, `pins` and `types`. The file is created, or
 replaced once the new one is complete. Returns 0 or an error number: ESPIPE if the target is
 no regular file, ELOOP or EPERM if a privileged process finds a link or another user's file.
 Allocates nothing. Any thread may call it, without the GIL. It takes about a microsecond for
 a pool of 64 KiB, and with objects about 0.1 for each; it delays other threads at most for
 one pool. While other threads allocate, pools are of different moments.
 */
int obmalloc_snapshot(const char *path);

/*
 `obmalloc_snapshot` with the parts in `flags`: without types it reads no block, and takes a small
 part of the time. EINVAL if a flag is unknown.
 */
int obmalloc_snapshot_with(const char *path, unsigned int flags);

/*
 Starts the heap profiler: a new profile, with a mean of `interval` bytes between two samples; 0: the
 default of 512 KiB; 1: every allocation is sampled. Blocks that were allocated before are not in
 it. Returns 0 or an error number: EALREADY if it runs, ENOMEM, EPERM in a sandbox that forbids the
 system calls for it. If a CPython runs in the process, the caller holds its GIL: from Python by
 `ctypes.PyDLL(...)`. Then the domain RAW is sampled, too; without a GIL it is not.
 */
int obmalloc_profile_start(size_t interval);

/*
 Stops the heap profiler. The samples so far stay in the profile until their blocks are freed, or
 the profiler is started again. Returns 0. Any thread may call it, without the GIL.
 */
int obmalloc_profile_stop(void);

/*
 Whether the heap profiler runs: the mean number of bytes between two samples, which doubles when
 the profiler's memory is full; 0 if it does not run. Any thread may call it, without the GIL.
 */
size_t obmalloc_profile_interval(void);

/*
 Writes the heap profile to the file at `path`, in pprof's format (gzipped profile.proto). The file
 is created, or replaced once the new one is complete. Returns 0 or an error number: ENODATA if the
 profiler was never started; ELOOP or EPERM if a privileged process finds a link or another user's
 file. Allocates nothing. Any thread may call it, without the GIL; threads whose allocations are
 sampled wait for some milliseconds.
 */
int obmalloc_profile_dump(const char *path);

/*
 For servers, before a fork: empties the magazines of the calling thread and returns all
 free pages, so that children share as much memory as possible. Returns the number of bytes
 returned to the kernel.
 */
size_t obmalloc_before_fork(void);

/*
 Allocates `n` bytes in the domain RAW, which is the C library's malloc, or in a process with
 a CPython the host's domain. Aligned to 16 bytes; a request for 0 bytes returns a block of
 its own. NULL if there is no memory, or `n` exceeds `PY_SSIZE_T_MAX`. Any thread may call
 it, without the GIL.
 */
void *PyMem_RawMalloc(size_t n);

/*
 Allocates `nelem` times `elsize` bytes, all zero, in the domain RAW. NULL
 also if the product exceeds `PY_SSIZE_T_MAX`.
 */
void *PyMem_RawCalloc(size_t nelem, size_t elsize);

/*
 Changes the size of the block `p` of the domain RAW to `n` bytes, moving it if necessary.
 `p` may be NULL: then it allocates. NULL if there is no memory; then the block is unchanged.
 */
void *PyMem_RawRealloc(void *p, size_t n);

/*
 Frees the block `p` of the domain RAW; does nothing if it is NULL. Blocks of `PyMem_Malloc`
 and `PyObject_Malloc` are accepted, too.
 */
void PyMem_RawFree(void *p);

/*
 Allocates `n` bytes in the domain MEM. Aligned to 16 bytes; a request for
 0 bytes returns a block of its own. NULL if there is no memory, or `n` exceeds
 `PY_SSIZE_T_MAX`. In a process with a CPython the caller holds the GIL; in other processes
 any thread may call it.
 */
void *PyMem_Malloc(size_t n);

/*
 Allocates `nelem` times `elsize` bytes, all zero, in the domain MEM. NULL
 also if the product exceeds `PY_SSIZE_T_MAX`.
 */
void *PyMem_Calloc(size_t nelem, size_t elsize);

/*
 Changes the size of the block `p` of the domain MEM to `n` bytes, moving it if necessary;
 it does not move while `n` fits the block and is more than three quarters of it. `p` may be
 NULL: then it allocates. NULL if there is no memory; then the block is unchanged. A block
 of the C library remains one.
 */
void *PyMem_Realloc(void *p, size_t n);

/*
 Frees the block `p` of the domain MEM; does nothing if it is NULL. Blocks of
 `PyObject_Malloc` and of the C library's malloc are accepted, too.
 */
void PyMem_Free(void *p);

/*
 Allocates `n` bytes in the domain OBJ. Aligned to 16 bytes; a request for
 0 bytes returns a block of its own. NULL if there is no memory, or `n` exceeds
 `PY_SSIZE_T_MAX`. In a process with a CPython the caller holds the GIL; in other processes
 any thread may call it.
 */
void *PyObject_Malloc(size_t n);

/*
 Allocates `nelem` times `elsize` bytes, all zero, in the domain OBJ. NULL
 also if the product exceeds `PY_SSIZE_T_MAX`.
 */
void *PyObject_Calloc(size_t nelem, size_t elsize);

/*
 Changes the size of the block `p` of the domain OBJ to `n` bytes: see
 `PyMem_Realloc`.
 */
void *PyObject_Realloc(void *p, size_t n);

/*
 Frees the block `p` of the domain OBJ; does nothing if it is NULL. Blocks of `PyMem_Malloc`
 and of the C library's malloc are accepted, too.
 */
void PyObject_Free(void *p);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#if defined(__has_include) && !defined(OBMALLOC_TABLES)
#if __has_include(<Python.h>)
#define OBMALLOC_HAS_PYTHON_H
#endif
#endif

/* Tables of allocators, debug hooks, arenas: CPython's own API. A program that
 * uses Python.h has these types from there; so this part is left out where
 * Python.h was included before, or is on the include path and may be included
 * later, unless OBMALLOC_TABLES is defined. */
#if !defined(Py_PYTHON_H) && !defined(OBMALLOC_HAS_PYTHON_H)

/*
 A domain, by CPython's number.
 */
typedef int PyMemAllocatorDomain;

/*
 A domain's allocator: four functions and their first argument. Sizes are in bytes, at most
 PY_SSIZE_T_MAX; a request for 0 bytes returns a pointer that is not NULL; blocks are aligned to 16
 bytes.
 */
typedef struct PyMemAllocatorEx {
  /*
   Passed to the functions as their first argument.
   */
  void *ctx;
  /*
   As C's malloc.
   */
  void *(*malloc)(void *ctx, size_t size);
  /*
   As C's calloc.
   */
  void *(*calloc)(void *ctx, size_t nelem, size_t elsize);
  /*
   As C's realloc.
   */
  void *(*realloc)(void *ctx, void *ptr, size_t new_size);
  /*
   As C's free.
   */
  void (*free)(void *ctx, void *ptr);
} PyMemAllocatorEx;

/*
 The allocator of arenas. `alloc` returns NULL or `size` bytes; `free` is called with the result
 of `alloc` and its size.
 */
typedef struct PyObjectArenaAllocator {
  /*
   Passed to the functions as their first argument.
   */
  void *ctx;
  /*
   Allocates an arena.
   */
  void *(*alloc)(void *ctx, size_t size);
  /*
   Frees an arena.
   */
  void (*free)(void *ctx, void *ptr, size_t size);
} PyObjectArenaAllocator;

/*
 The domain of `PyMem_RawMalloc`.
 */
#define PYMEM_DOMAIN_RAW 0

/*
 The domain of `PyMem_Malloc`.
 */
#define PYMEM_DOMAIN_MEM 1

/*
 The domain of `PyObject_Malloc`.
 */
#define PYMEM_DOMAIN_OBJ 2

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Writes the table of a domain to `allocator`; all NULL if the domain does not exist.
 */
void PyMem_GetAllocator(PyMemAllocatorDomain domain, struct PyMemAllocatorEx *allocator);

/*
 Makes a copy of `allocator` the table of a domain; does nothing if the domain does not
 exist. Called before other threads allocate. Blocks of the old table will be freed by the
 new one: so the new one is a hook that calls the old one, or is set before any block is
 allocated. A function that is NULL ends the process with a reason when it is called.

 Requests of `PyMem_*` and `PyObject_*` that no pool serves go to the domain RAW, through its
 table.
 */
void PyMem_SetAllocator(PyMemAllocatorDomain domain, struct PyMemAllocatorEx *allocator);

/*
 Puts CPython's debug hooks over the tables of all domains, once. Then each block has 16 bytes
 before it and 8 after it that must not change, new bytes are filled with 0xCD and freed ones
 with 0xDD. A corrupted block, or one that is freed in another domain, is described on stderr
 and ends the process. Called before any block is allocated, and again after
 `PyMem_SetAllocator`.
 */
void PyMem_SetupDebugHooks(void);

/*
 Writes the allocator of arenas to `allocator`.
 */
void PyObject_GetArenaAllocator(struct PyObjectArenaAllocator *allocator);

/*
 Sets the allocator of arenas: 1 MiB each, as in CPython (256 KiB until 3.9), at any address;
 one that is aligned to 64 KiB is used completely, others lose one pool. An arena is freed
 when all its blocks are free; one empty arena is kept. If it returns NULL, the domain RAW
 serves the request. The functions are called with no lock held, and without a host from any
 thread. An arena is freed by the allocator that is set at that time.
 */
void PyObject_SetArenaAllocator(struct PyObjectArenaAllocator *allocator);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif

#endif  /* OBMALLOC_H */
