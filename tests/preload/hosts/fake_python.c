/* A host with the interface of libpython: Py_GetVersion() and the memory functions of that
 * version, over blocks that the host can distinguish from others.
 *
 *   -DVERSION='"3.11.7 (main, ...)"'   the answer of Py_GetVersion()
 *   -DNO_TABLE, -DFOUR_POINTERS        the interface of 2.7, of 3.4
 *   -DTABLE_OF_OTHERS=n                bit n: domain n starts with foreign.c's functions
 *   -DNO_SETTER                        no PyMem_SetAllocator
 *   -DREAD_ONLY                        PyMem_SetAllocator has no effect
 *   -DDEAF                             PyMem_* and PyObject_* do not read their tables
 *   -DSWAPPED                          the table has realloc before calloc
 *   -DDIRECT_FREE                      the host frees by a direct call, which
 *                                      cannot be interposed, and calls all else by the PLT
 */
#include "fake_python.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x6f776e626c6f636bULL

struct host_counts host_counts;

const char *Py_GetVersion(void) { return VERSION; }

int Py_IsInitialized(void) { return 0; }

static void *own_malloc(void *ctx, size_t n)
{
    (void)ctx;
    uint64_t *block = malloc(n + 16);
    if (block == NULL)
        return NULL;
    block[0] = MAGIC;
    host_counts.mallocs++;
    return block + 2;
}

/* The header of p; NULL, and counted, if p is not a block of the host. */
static uint64_t *own(void *p)
{
    uint64_t *block = (uint64_t *)p - 2;
    if (block[0] == MAGIC)
        return block;
    host_counts.foreign++;
    return NULL;
}

static void own_free(void *ctx, void *p)
{
    (void)ctx;
    host_counts.frees += p != NULL;
    uint64_t *block = p ? own(p) : NULL;
    if (block) {
        block[0] = 0;
        free(block);
    }
}

static void *own_realloc(void *ctx, void *p, size_t n)
{
    if (p == NULL)
        return own_malloc(ctx, n);
    host_counts.reallocs++;
    uint64_t *block = own(p);
    block = block ? realloc(block, n + 16) : NULL;
    return block ? block + 2 : NULL;
}

#ifdef NO_TABLE

/* 2.7: the names are the allocator itself; PyMem_* stay with libc. */
void *PyObject_Malloc(size_t n) { return own_malloc(NULL, n); }
void *PyObject_Realloc(void *p, size_t n) { return own_realloc(NULL, p, n); }
void PyObject_Free(void *p) { own_free(NULL, p); }
void *PyMem_Malloc(size_t n) { return malloc(n ? n : 1); }
void *PyMem_Realloc(void *p, size_t n) { return realloc(p, n ? n : 1); }
void PyMem_Free(void *p) { free(p); }

#else

static void *raw_malloc(void *ctx, size_t n) { (void)ctx; return malloc(n ? n : 1); }
static void *raw_realloc(void *ctx, void *p, size_t n) { (void)ctx; return realloc(p, n ? n : 1); }
static void raw_free(void *ctx, void *p) { (void)ctx; free(p); }

#ifdef FOUR_POINTERS
#define TABLE(who) {NULL, who##_malloc, who##_realloc, who##_free}
#else
#define TABLE(who)                                                                          \
    {.malloc = who##_malloc, .calloc = who##_calloc, .realloc = who##_realloc, .free = who##_free}
static void *raw_calloc(void *ctx, size_t count, size_t size)
{
    (void)ctx;
    return count && size ? calloc(count, size) : calloc(1, 1);
}

static void *own_calloc(void *ctx, size_t count, size_t size)
{
    void *p = own_malloc(ctx, count * size);
    return p ? memset(p, 0, count * size) : NULL;
}
#endif

#ifndef TABLE_OF_OTHERS
#define TABLE_OF_OTHERS 0
#endif
#if TABLE_OF_OTHERS & 2
#define MEM_TABLE TABLE(foreign)
#else
#define MEM_TABLE TABLE(own)
#endif
#if TABLE_OF_OTHERS & 4
#define OBJ_TABLE TABLE(foreign)
#else
#define OBJ_TABLE TABLE(own)
#endif
#if TABLE_OF_OTHERS
void *foreign_malloc(void *ctx, size_t n);
void *foreign_calloc(void *ctx, size_t count, size_t size);
void *foreign_realloc(void *ctx, void *p, size_t n);
void foreign_free(void *ctx, void *p);
#endif

static Allocator tables[3] = {TABLE(raw), MEM_TABLE, OBJ_TABLE};

void PyMem_GetAllocator(int domain, Allocator *allocator)
{
    *allocator = tables[domain];
}

#ifndef NO_SETTER
void PyMem_SetAllocator(int domain, Allocator *allocator)
{
    host_counts.table_writes++;
#ifdef READ_ONLY
    (void)domain, (void)allocator;
#else
    tables[domain] = *allocator;
#endif
}
#endif

/* The table that the host's functions call. */
#ifdef DEAF
static const Allocator initial[3] = {TABLE(raw), MEM_TABLE, OBJ_TABLE};
#define CALLED initial
#else
#define CALLED tables
#endif
#define DOMAIN(name, n)                                                                     \
    void *name##Malloc(size_t size) { return CALLED[n].malloc(CALLED[n].ctx, size); }       \
    void *name##Realloc(void *p, size_t size)                                               \
    {                                                                                       \
        return CALLED[n].realloc(CALLED[n].ctx, p, size);                                   \
    }                                                                                       \
    void name##Free(void *p) { CALLED[n].free(CALLED[n].ctx, p); }
DOMAIN(PyMem_Raw, 0)
DOMAIN(PyMem_, 1)
DOMAIN(PyObject_, 2)

#ifndef FOUR_POINTERS
#define CALLOC(name, n)                                                                     \
    void *name##Calloc(size_t count, size_t size)                                           \
    {                                                                                       \
        return CALLED[n].calloc(CALLED[n].ctx, count, size);                              \
    }
CALLOC(PyMem_Raw, 0)
CALLOC(PyMem_, 1)
CALLOC(PyObject_, 2)
#endif
#endif

/* noinline: these are the calls of the host's other source files. */
__attribute__((noinline)) void *host_malloc(size_t n) { return PyObject_Malloc(n); }
__attribute__((noinline)) void *host_realloc(void *p, size_t n) { return PyObject_Realloc(p, n); }
#ifdef DIRECT_FREE
extern __typeof__(PyObject_Free) direct_free __attribute__((alias("PyObject_Free"), visibility("hidden")));
__attribute__((noinline)) void host_free(void *p) { direct_free(p); }
#else
__attribute__((noinline)) void host_free(void *p) { PyObject_Free(p); }
#endif
