/* An arena allocator and an allocator of RAW that refuse requests at random and otherwise call
 * the ones before them. */
#ifndef FAILING_H
#define FAILING_H

#include "blocks.h"

static PyObjectArenaAllocator arenas_before;
static PyMemAllocatorEx raw_before;
static atomic_int refusing; /* one request in this many; 0: none */

static bool refuses(int one_in)
{
    static _Thread_local uint64_t random;
    if (random == 0)
        random = (uintptr_t)&random ^ ((uint64_t)getpid() << 32);
    const int in = refusing;
    return in && random_below(&random, (size_t)(in * one_in)) == 0;
}

static void *failing_arena(void *ctx, size_t size)
{
    return refuses(1) ? NULL : arenas_before.alloc(ctx, size);
}

static void *failing_malloc(void *ctx, size_t n)
{
    return refuses(8) ? NULL : raw_before.malloc(ctx, n);
}

static void *failing_calloc(void *ctx, size_t n, size_t of)
{
    return refuses(8) ? NULL : raw_before.calloc(ctx, n, of);
}

static void *failing_realloc(void *ctx, void *p, size_t n)
{
    return refuses(8) ? NULL : raw_before.realloc(ctx, p, n);
}

/* Must be called while no other thread allocates. */
static void begin_to_fail(int one_in)
{
    PyObject_GetArenaAllocator(&arenas_before);
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &raw_before);
    PyObjectArenaAllocator arenas = {arenas_before.ctx, failing_arena, arenas_before.free};
    PyMemAllocatorEx table = {raw_before.ctx, failing_malloc, failing_calloc, failing_realloc,
                              raw_before.free};
    PyObject_SetArenaAllocator(&arenas);
    PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &table);
    may_fail = true;
    refusing = one_in;
}

static void fail_no_more(void)
{
    refusing = 0;
    may_fail = false;
}

#endif
