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
 `obmalloc_install`: the library serves this process.
 */
#define OBMALLOC_ACTIVE 0

/*
 `obmalloc_install`: there is no CPython in this process.
 */
#define OBMALLOC_NO_HOST 1

/*
 `obmalloc_install`: this version of CPython is not served.
 */
#define OBMALLOC_UNSUPPORTED 2

/*
 `obmalloc_install`: this CPython is built without a GIL.
 */
#define OBMALLOC_FREE_THREADED 3

/*
 `obmalloc_install`: PYTHONMALLOC or the development mode is in force.
 */
#define OBMALLOC_CHOSEN 4

/*
 `obmalloc_install`: another allocator is installed already.
 */
#define OBMALLOC_OTHER_ALLOCATOR 5

/*
 `obmalloc_install`: tracemalloc is tracing; stop it first.
 */
#define OBMALLOC_TRACING 6

/*
 `obmalloc_install`: the host's calls cannot be made to reach the library:
 it has no tables of allocators, or is a 2.7 that was not preloaded.
 */
#define OBMALLOC_NO_WAY_IN 7

/*
 `obmalloc_install`: the calling thread does not hold the GIL.
 */
#define OBMALLOC_NO_GIL 8

/*
 `obmalloc_install`: another CPython of this process is served already.
 */
#define OBMALLOC_SERVES_ANOTHER 9

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The library's version, such as "0.1.0". Lives as long as the process.
 */
const char *obmalloc_version(void);

/*
 Installs the library in the CPython of this process (3.6 to 3.14), whether
 it was there from the start or loaded since, running or not. Blocks that
 its own allocator has handed out go back to that.

 To be called with the GIL, if the interpreter runs: from Python, by
 `ctypes.PyDLL(...)`, not `CDLL`. Of several CPythons in the process that one is
 meant whose GIL the calling thread holds; one of them is served. Returns OBMALLOC_ACTIVE (0) if the library
 serves the process now, else one of the reasons above, with nothing
 changed. May be called again.
 */
int obmalloc_install(void);

/*
 Writes what the heap holds now as JSON to `buffer`: at most `size` bytes,
 the last of them NUL. Returns the length of the whole text without NUL, as
 snprintf does: the text is whole if that is less than `size`. `buffer` may
 be NULL if `size` is 0. Allocates nothing; where another thread calls it at the
 same time, 8 KiB are mapped meanwhile, and 0 is returned if they cannot be. Any thread may call it, without
 the GIL; while others allocate, the numbers of different size classes are
 of different moments.
 */
size_t obmalloc_stats_json(char *buffer,
                           size_t size);

/*
 Gives memory that is free back to the kernel, page by page, until no more
 than `keep` bytes are left that are free and resident; returns how many bytes
 went back. Any thread may call it, without the GIL; it takes time with the
 size of the heap and of what goes back, some 10 microseconds for a pool's 64
 KiB (benchmark `lock_time`), and stops nobody for longer than the return of one
 pool's pages. Free blocks that other threads
 have at hand stay where they are.
 */
size_t obmalloc_trim(size_t keep);

/*
 Writes what lies on each page of the heap now to the file at `path`, which is
 made, or replaced when the new one is whole: for `obmalloc map` and `pins`. Returns
 0, or the errno that it failed by: ESPIPE for what is no file, ELOOP and EPERM where
 a privileged process finds a link or a file of somebody else. Allocates nothing. Any thread may call it, without the GIL; it
 takes about a microsecond for a pool's 64 KiB, and stops nobody for longer than a
 look at one pool. While others allocate, pools are of different moments.
 */
int obmalloc_snapshot(const char *path);

/*
 For servers that are about to fork: empties what the calling thread has at
 hand and gives all free pages back, so that children share as much as can be
 shared. Returns how many bytes went back to the kernel.
 */
size_t obmalloc_before_fork(void);

/*
 Allocates `n` bytes in the domain RAW, which is the C library's malloc
 unless a CPython host says otherwise. Aligned to 16 bytes; a request for
 nothing returns a block of its own. NULL if there is no memory, or `n`
 exceeds `PY_SSIZE_T_MAX`. Any thread may call it, without the GIL.
 */
void *PyMem_RawMalloc(size_t n);

/*
 Allocates `nelem` times `elsize` bytes, all zero, in the domain RAW. NULL
 also if the product exceeds `PY_SSIZE_T_MAX`.
 */
void *PyMem_RawCalloc(size_t nelem, size_t elsize);

/*
 Changes the size of the block `p` of the domain RAW to `n` bytes, moving it
 if need be. `p` may be NULL: then it allocates. NULL if there is no memory,
 and the block is as it was.
 */
void *PyMem_RawRealloc(void *p, size_t n);

/*
 Frees the block `p` of the domain RAW; nothing if it is NULL. A block of
 `PyMem_Malloc` or `PyObject_Malloc` that went astray is taken, too.
 */
void PyMem_RawFree(void *p);

/*
 Allocates `n` bytes in the domain MEM. Aligned to 16 bytes; a request for
 nothing returns a block of its own. NULL if there is no memory, or `n`
 exceeds `PY_SSIZE_T_MAX`. In a CPython host, call it as the host demands
 (with the GIL); elsewhere from any thread.
 */
void *PyMem_Malloc(size_t n);

/*
 Allocates `nelem` times `elsize` bytes, all zero, in the domain MEM. NULL
 also if the product exceeds `PY_SSIZE_T_MAX`.
 */
void *PyMem_Calloc(size_t nelem, size_t elsize);

/*
 Changes the size of the block `p` of the domain MEM to `n` bytes, moving it
 if need be; it stays where it is while `n` fits the block and is more than
 three quarters of it. `p` may be NULL: then it allocates. NULL if there is
 no memory, and the block is as it was. A block of the C library's stays
 one.
 */
void *PyMem_Realloc(void *p, size_t n);

/*
 Frees the block `p` of the domain MEM; nothing if it is NULL. A block of
 `PyObject_Malloc` or of the C library's malloc is taken, too.
 */
void PyMem_Free(void *p);

/*
 Allocates `n` bytes in the domain OBJ. Aligned to 16 bytes; a request for
 nothing returns a block of its own. NULL if there is no memory, or `n`
 exceeds `PY_SSIZE_T_MAX`. In a CPython host, call it as the host demands
 (with the GIL); elsewhere from any thread.
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
 Frees the block `p` of the domain OBJ; nothing if it is NULL. A block of
 `PyMem_Malloc` or of the C library's malloc is taken, too.
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
 * Python.h was included before, or stands on the include path and may still
 * be, unless OBMALLOC_TABLES is defined. */
#if !defined(Py_PYTHON_H) && !defined(OBMALLOC_HAS_PYTHON_H)

/*
 A domain, by CPython's number.
 */
typedef int PyMemAllocatorDomain;

/*
 A domain's allocator: four functions, and what they get as their first
 argument. Sizes are in bytes, up to PY_SSIZE_T_MAX; a request for nothing
 wants a pointer that is not NULL; blocks are to be aligned to 16 bytes.
 */
typedef struct PyMemAllocatorEx {
  /*
   Handed to the functions as their first argument.
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
 Where arenas come from. `alloc` returns NULL or `size` bytes; `free` gets back
 what `alloc` returned, and its size.
 */
typedef struct PyObjectArenaAllocator {
  /*
   Handed to the functions as their first argument.
   */
  void *ctx;
  /*
   Makes an arena.
   */
  void *(*alloc)(void *ctx, size_t size);
  /*
   Takes an arena back.
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
 Writes the table of a domain to `allocator`; all NULL if there is no such
 domain.
 */
void PyMem_GetAllocator(PyMemAllocatorDomain domain, struct PyMemAllocatorEx *allocator);

/*
 Makes a copy of `allocator` the table of a domain; nothing if there is no
 such domain. To be called before other threads allocate. Blocks that the
 table before has handed out will be given to the new one: so it has to be a
 hook, which hands on to the old, or to be set before anything is allocated.
 A function that is NULL ends the process, with a reason, when it is called.

 Requests of `PyMem_*` and `PyObject_*` that no pool serves go to the domain
 RAW, by whatever is in its table.
 */
void PyMem_SetAllocator(PyMemAllocatorDomain domain, struct PyMemAllocatorEx *allocator);

/*
 Puts CPython's debug hooks over the tables of all domains, once: each block
 then has 16 bytes before it and 8 behind it that nobody may change, new
 bytes are filled with 0xCD and freed ones with 0xDD, and a block that was
 damaged, or is given back by another domain, is described on stderr and ends
 the process. To be called before anything is allocated, and again after
 `PyMem_SetAllocator`.
 */
void PyMem_SetupDebugHooks(void);

/*
 Writes to `allocator` where arenas come from.
 */
void PyObject_GetArenaAllocator(struct PyObjectArenaAllocator *allocator);

/*
 Has arenas come from `allocator` from now on: 1 MiB each, as CPython asks
 for (256 KiB up to 3.9), at any address; those aligned to 64 KiB are used to
 the last byte, of others one pool's worth is lost. An arena goes back when all its blocks
 are free; one that is empty is kept. When NULL is returned, the domain RAW
 serves the request. The functions are called with no lock held, and without
 a host from any thread. Arenas that `allocator` has made go back to what is
 set then.
 */
void PyObject_SetArenaAllocator(struct PyObjectArenaAllocator *allocator);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif

#endif  /* OBMALLOC_H */
