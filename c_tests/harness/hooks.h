/* An allocator that counts its calls, records the last one, and forwards each to the allocator
 * that was set in its domain before; it can be made to fail. Hooks nest: the last one is called
 * first. */
#ifndef HOOKS_H
#define HOOKS_H

#include "harness.h"

enum { MALLOC, CALLOC, REALLOC, FREE };

struct call {
    int function;
    void *p;       /* of realloc and free */
    size_t n, of;  /* calloc: n times `of` */
    void *result;
    unsigned when; /* every call of every hook has its number */
};

struct hook {
    PyMemAllocatorDomain domain;
    PyMemAllocatorEx below;
    unsigned calls[4], all;
    struct call last;
    long left; /* that many requests succeed yet; negative: all */
    void (*peek)(struct hook *hook, void *p); /* called before realloc and free */
};

static unsigned hook_calls;

static inline struct hook *hook_called(void *ctx, int function, void *p, size_t n, size_t of)
{
    struct hook *hook = ctx;
    hook->calls[function]++;
    hook->all++;
    hook->last = (struct call){function, p, n, of, NULL, ++hook_calls};
    if (p && hook->peek)
        hook->peek(hook, p);
    return hook;
}

static inline bool hook_fails(struct hook *hook)
{
    if (hook->left > 0)
        hook->left--;
    else if (hook->left == 0)
        return true;
    return false;
}

static inline void *hook_malloc(void *ctx, size_t n)
{
    struct hook *hook = hook_called(ctx, MALLOC, NULL, n, 0);
    void *result = hook_fails(hook) ? NULL : hook->below.malloc(hook->below.ctx, n);
    return hook->last.result = result;
}

static inline void *hook_calloc(void *ctx, size_t n, size_t of)
{
    struct hook *hook = hook_called(ctx, CALLOC, NULL, n, of);
    void *result = hook_fails(hook) ? NULL : hook->below.calloc(hook->below.ctx, n, of);
    return hook->last.result = result;
}

static inline void *hook_realloc(void *ctx, void *p, size_t n)
{
    struct hook *hook = hook_called(ctx, REALLOC, p, n, 0);
    void *result = hook_fails(hook) ? NULL : hook->below.realloc(hook->below.ctx, p, n);
    return hook->last.result = result;
}

static inline void hook_free(void *ctx, void *p)
{
    struct hook *hook = hook_called(ctx, FREE, p, 0, 0);
    hook->below.free(hook->below.ctx, p);
}

static inline void hook_on(struct hook *hook, PyMemAllocatorDomain domain)
{
    *hook = (struct hook){.domain = domain, .left = -1};
    PyMem_GetAllocator(domain, &hook->below);
    PyMemAllocatorEx table = {hook, hook_malloc, hook_calloc, hook_realloc, hook_free};
    PyMem_SetAllocator(domain, &table);
}

static inline void hook_off(struct hook *hook)
{
    PyMem_SetAllocator(hook->domain, &hook->below);
}

static inline bool last_was(const struct hook *hook, int function, const void *p, size_t n,
                                  size_t of)
{
    const struct call *last = &hook->last;
    return last->function == function && last->p == p && last->n == n && last->of == of;
}

static inline PyMemAllocatorDomain domain_of(const struct domain *d)
{
    return d == &raw ? PYMEM_DOMAIN_RAW : d == &mem ? PYMEM_DOMAIN_MEM : PYMEM_DOMAIN_OBJ;
}

static inline bool same_table(const PyMemAllocatorEx *a, const PyMemAllocatorEx *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

#endif
