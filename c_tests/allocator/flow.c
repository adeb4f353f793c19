/* ways: so a pre host valgrind
 *
 * Which domain serves a request: what no pool can serve is requested from the allocator of RAW,
 * and a pointer outside the pools is passed to it. Allocators may be called by hand, be replaced
 * while blocks live, and forward to one another. */
#include "hooks.h"

enum { LARGE = MEDIUM_MAX + 1 }; /* always from RAW */

static const size_t sizes[] = {0, 1, 16, 100, 512, 513, 5000, MEDIUM_MAX, LARGE, 1000000};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* MEM and OBJ above 32 KiB. */
static void large_from_raw(const struct domain *d)
{
    struct hook hook;
    hook_on(&hook, PYMEM_DOMAIN_RAW);
    void *p = d->malloc(LARGE);
    CHECK(last_was(&hook, MALLOC, NULL, LARGE, 0) && hook.last.result == p);
    void *q = d->calloc(5, LARGE);
    CHECK(last_was(&hook, CALLOC, NULL, 5, LARGE) && hook.last.result == q);
    void *r = d->realloc(p, LARGE * 3);
    CHECK(last_was(&hook, REALLOC, p, LARGE * 3, 0) && hook.last.result == r);
    p = d->realloc(r, 100); /* stays there: nobody else knows its size */
    CHECK(last_was(&hook, REALLOC, r, 100, 0) && hook.last.result == p);
    d->free(p);
    CHECK(last_was(&hook, FREE, p, 0, 0));
    d->free(q);
    p = d->malloc(100);
    fill(p, 100, 4);
    unsigned before = hook.all;
    hook.left = 0;
    q = d->malloc(200); /* from a pool that has room */
    CHECK(d->malloc(LARGE) == NULL && d->calloc(LARGE, 1) == NULL);
    CHECK(d->realloc(NULL, LARGE) == NULL);
    CHECK(d->realloc(p, LARGE) == NULL && holds(p, 100, 4));
    CHECK(hook.all == before + 4 && q);
    hook.left = 1;
    r = d->malloc(LARGE);
    fill(r, LARGE, 5);
    CHECK(d->realloc(r, LARGE * 2) == NULL && holds(r, LARGE, 5));
    hook.left = -1;
    r = d->realloc(r, LARGE * 2);
    p = d->realloc(p, LARGE);
    CHECK(holds(r, LARGE, 5) && holds(p, 100, 4));
    d->free(p);
    d->free(q);
    d->free(r);
    p = malloc(100); /* nor is this of a pool */
    r = d->realloc(p, 200);
    CHECK(last_was(&hook, REALLOC, p, 200, 0) && hook.last.result == r);
    d->free(r);
    CHECK(last_was(&hook, FREE, r, 0, 0));
    FACT("%s: raw sees %u, %u, %u, %u calls", d->name, hook.calls[MALLOC], hook.calls[CALLOC],
         hook.calls[REALLOC], hook.calls[FREE]);
    hook_off(&hook);
}

/* The functions of the first allocators, called by hand, beside the public names. */
static void by_hand(const struct domain *d)
{
    const struct domain *twin = d == &mem ? &obj : d == &obj ? &mem : &raw;
    PyMemAllocatorEx t, other;
    PyMem_GetAllocator(domain_of(d), &t);
    PyMem_GetAllocator(domain_of(twin), &other);
    for (int i = 0; i < SIZES; i++) {
        size_t n = sizes[i];
        void *p = t.malloc(t.ctx, n), *q = t.calloc(t.ctx, n, 1), *r = d->malloc(n);
        CHECK(p && q && r && p != q && q != r && p != r);
        fill(p, n, i);
        p = other.realloc(other.ctx, p, n * 2);
        r = t.realloc(t.ctx, r, n / 2);
        CHECK(p && r && holds(p, n, i));
        d->free(p);
        other.free(other.ctx, q);
        t.free(t.ctx, r);
    }
    t.free(t.ctx, NULL);
    if (d == &raw) /* the C library's */
        free(t.realloc(t.ctx, malloc(50), 100));
}

/* Another allocator for a while. Its blocks that are still live afterwards are passed to the
 * first one, which recognises pointers outside its pools. */
static void replaced(const struct domain *d)
{
    PyMemAllocatorEx first, c_library;
    PyMem_GetAllocator(domain_of(d), &first);
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &c_library);
    void *ours[SIZES], *theirs[SIZES];
    for (int i = 0; i < SIZES; i++)
        fill(ours[i] = d->malloc(sizes[i]), sizes[i], i);
    PyMem_SetAllocator(domain_of(d), &c_library);
    for (int i = 0; i < SIZES; i++) {
        void *p = d->realloc(d->malloc(sizes[i]), sizes[i] * 2);
        fill(theirs[i] = p, sizes[i] * 2, i);
        free(d->calloc(sizes[i], 1));
    }
    PyMem_SetAllocator(domain_of(d), &first);
    for (int i = 0; i < SIZES; i++) {
        CHECK(holds(ours[i], sizes[i], i) && holds(theirs[i], sizes[i] * 2, i));
        ours[i] = d->realloc(ours[i], sizes[i] / 2);
        theirs[i] = d->realloc(theirs[i], sizes[i] * 3);
        CHECK(holds(ours[i], sizes[i] / 2, i) && holds(theirs[i], sizes[i] * 2, i));
        d->free(ours[i]);
        d->free(theirs[i]);
    }
}

/* OBJ by way of MEM, MEM by way of RAW, as some debuggers put them. */
static void *through_malloc(void *ctx, size_t n) { return ((struct domain *)ctx)->malloc(n); }
static void through_free(void *ctx, void *p) { ((struct domain *)ctx)->free(p); }
static void *through_calloc(void *ctx, size_t n, size_t of)
{
    return ((struct domain *)ctx)->calloc(n, of);
}
static void *through_realloc(void *ctx, void *p, size_t n)
{
    return ((struct domain *)ctx)->realloc(p, n);
}

static void each_through_the_next(void)
{
    PyMemAllocatorEx first[2];
    struct hook hook;
    PyMem_GetAllocator(PYMEM_DOMAIN_MEM, &first[0]);
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &first[1]);
    PyMemAllocatorEx t = {(void *)&mem, through_malloc, through_calloc, through_realloc,
                          through_free};
    void *old = obj.malloc(100);
    hook_on(&hook, PYMEM_DOMAIN_RAW);
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &t);
    for (int i = 0; i < SIZES - 2; i++)
        obj.free(obj.malloc(sizes[i])); /* still of a pool, in the end */
    t.ctx = (void *)&raw;
    PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &t);
    unsigned before = hook.all;
    for (int i = 0; i < SIZES; i++) {
        void *p = obj.malloc(sizes[i]), *q = obj.calloc(sizes[i], 3);
        CHECK(last_was(&hook, CALLOC, NULL, sizes[i], 3) && hook.last.result == q);
        fill(p, sizes[i], i);
        p = obj.realloc(p, sizes[i] + 50);
        CHECK(holds(p, sizes[i], i));
        mem.free(q);
        CHECK(last_was(&hook, FREE, q, 0, 0));
        obj.free(p);
    }
    FACT("obj through mem through raw: %u calls", hook.all - before);
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &first[1]);
    PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &first[0]);
    hook_off(&hook);
    obj.free(old);
}

static void from_raw(void)
{
    large_from_raw(&mem);
    large_from_raw(&obj);
}

static void all_by_hand(void)
{
    FOR_EACH_DOMAIN(d)
        by_hand(d);
}

static void both_replaced(void)
{
    replaced(&mem);
    replaced(&obj);
}

CASES({"flow-large-from-raw", from_raw},
      {"flow-by-hand", all_by_hand},
      {"flow-replaced", both_replaced},
      {"flow-each-through-the-next", each_through_the_next});
