/* The part of CPython's memory interface that the fake hosts define. The names
 * of PEP 445, in the form of 3.5 and later; with -DFOUR_POINTERS that of 3.4,
 * whose table has no calloc; with -DNO_TABLE that of 2.7. */
#ifndef FAKE_PYTHON_H
#define FAKE_PYTHON_H

#include <stddef.h>

typedef struct {
    void *ctx;
    void *(*malloc)(void *ctx, size_t n);
#ifdef SWAPPED
    void *(*realloc)(void *ctx, void *p, size_t n);
    void *(*calloc)(void *ctx, size_t count, size_t size);
#else
#ifndef FOUR_POINTERS
    void *(*calloc)(void *ctx, size_t count, size_t size);
#endif
    void *(*realloc)(void *ctx, void *p, size_t n);
#endif
    void (*free)(void *ctx, void *p);
} Allocator;

const char *Py_GetVersion(void);
int Py_IsInitialized(void);

void *PyObject_Malloc(size_t n);
void *PyObject_Realloc(void *p, size_t n);
void PyObject_Free(void *p);
void *PyMem_Malloc(size_t n);
void *PyMem_Realloc(void *p, size_t n);
void PyMem_Free(void *p);

#ifndef NO_TABLE
void PyMem_GetAllocator(int domain, Allocator *allocator);
void PyMem_SetAllocator(int domain, Allocator *allocator);
void *PyMem_RawMalloc(size_t n);
void *PyMem_RawRealloc(void *p, size_t n);
void PyMem_RawFree(void *p);
#ifndef FOUR_POINTERS
void *PyObject_Calloc(size_t count, size_t size);
void *PyMem_Calloc(size_t count, size_t size);
void *PyMem_RawCalloc(size_t count, size_t size);
#endif
#endif

/* The host's calls of its own functions, from its own code. */
void *host_malloc(size_t n);
void *host_realloc(void *p, size_t n);
void host_free(void *p);

/* The counts of the host's own functions so far. */
extern struct host_counts {
    int mallocs, reallocs, frees, foreign, table_writes;
} host_counts;

#endif
