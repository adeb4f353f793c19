/* The functions under test: from the host's headers, or from the library's
 * own header, or declared here in a tree where that is not generated yet. */
#ifndef API_H
#define API_H

#include <stddef.h>

#ifndef HOST_CPYTHON
#define OBMALLOC_TABLES /* though a Python.h may be found, too */
#if __has_include("obmalloc.h")
#include "obmalloc.h"
#else
#define FOUR_FUNCTIONS(prefix)                             \
    extern void *prefix##Malloc(size_t n);                 \
    extern void *prefix##Calloc(size_t nelem, size_t elsize); \
    extern void *prefix##Realloc(void *p, size_t n);       \
    extern void prefix##Free(void *p);
FOUR_FUNCTIONS(PyMem_Raw)
FOUR_FUNCTIONS(PyMem_)
FOUR_FUNCTIONS(PyObject_)
extern const char *obmalloc_version(void);
extern int obmalloc_install(void);
extern size_t obmalloc_stats_json(char *buffer, size_t size);
extern size_t obmalloc_trim(size_t keep);
#define PYMEM_DOMAIN_RAW 0
#define PYMEM_DOMAIN_MEM 1
#define PYMEM_DOMAIN_OBJ 2
typedef int PyMemAllocatorDomain;
typedef struct {
    void *ctx;
    void *(*malloc)(void *ctx, size_t n);
    void *(*calloc)(void *ctx, size_t nelem, size_t elsize);
    void *(*realloc)(void *ctx, void *p, size_t n);
    void (*free)(void *ctx, void *p);
} PyMemAllocatorEx;
typedef struct {
    void *ctx;
    void *(*alloc)(void *ctx, size_t size);
    void (*free)(void *ctx, void *p, size_t size);
} PyObjectArenaAllocator;
extern void PyMem_GetAllocator(PyMemAllocatorDomain domain, PyMemAllocatorEx *allocator);
extern void PyMem_SetAllocator(PyMemAllocatorDomain domain, PyMemAllocatorEx *allocator);
extern void PyMem_SetupDebugHooks(void);
extern void PyObject_GetArenaAllocator(PyObjectArenaAllocator *allocator);
extern void PyObject_SetArenaAllocator(PyObjectArenaAllocator *allocator);
#endif
#endif

/* NO_API: for a program that must not name a function (dlopen_late.c). */
#ifndef NO_API

struct domain {
    const char *name;
    void *(*malloc)(size_t n);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *p, size_t n);
    void (*free)(void *p);
};

static const struct domain raw __attribute__((unused)) = {
    "raw", PyMem_RawMalloc, PyMem_RawCalloc, PyMem_RawRealloc, PyMem_RawFree};
static const struct domain mem __attribute__((unused)) = {
    "mem", PyMem_Malloc, PyMem_Calloc, PyMem_Realloc, PyMem_Free};
static const struct domain obj __attribute__((unused)) = {
    "obj", PyObject_Malloc, PyObject_Calloc, PyObject_Realloc, PyObject_Free};

static const struct domain *const domains[] __attribute__((unused)) = {
    &raw, &mem, &obj};

#define FOR_EACH_DOMAIN(d)                                              \
    for (const struct domain *const *d##_ = domains, *d;               \
         d##_ < domains + 3 && (d = *d##_, 1); d##_++)

#endif
#endif
