/* ways: so a pre host valgrind
 *
 * PyMem_GetAllocator and PyMem_SetAllocator: the functions that are set are called with the
 * caller's sizes and pointers, in each domain separately. */
#include "hooks.h"

enum { LARGE = MEDIUM_MAX + 1 }; /* always from RAW */

static const size_t sizes[] = {0, 1, 16, 100, 512, 513, 5000, MEDIUM_MAX, LARGE, 1000000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void *no_malloc(void *ctx, size_t n) { return n ? ctx : NULL; }
static void *no_calloc(void *ctx, size_t n, size_t of) { return n && of ? ctx : NULL; }
static void *no_realloc(void *ctx, void *p, size_t n) { return n ? ctx : p; }
static void no_free(void *ctx, void *p) { *(void **)ctx = p; }

static void round_trip(void)
{
    CHECK(sizeof(PyMemAllocatorEx) == 40);
    PyMemAllocatorEx before[3], now, all[3];
    FOR_EACH_DOMAIN(d)
        PyMem_GetAllocator(domain_of(d), &before[domain_of(d)]);
    FOR_EACH_DOMAIN(d) {
        void *freed = NULL;
        PyMemAllocatorEx own = {&freed, no_malloc, no_calloc, no_realloc, no_free}, kept = own;
        PyMem_SetAllocator(domain_of(d), &own);
        memset(&own, 0, sizeof own); /* it was copied */
        PyMem_GetAllocator(domain_of(d), &now);
        CHECK(same_table(&now, &kept));
        CHECK(d->malloc(7) == &freed && d->calloc(7, 7) == &freed && d->realloc(&now, 7) == &freed);
        CHECK(d->malloc(0) == NULL && d->calloc(7, 0) == NULL && d->realloc(&now, 0) == &now);
        d->free(&now);
        CHECK(freed == &now);
        FOR_EACH_DOMAIN(other) {
            PyMem_GetAllocator(domain_of(other), &all[domain_of(other)]);
            CHECK(other == d || same_table(&all[domain_of(other)], &before[domain_of(other)]));
        }
        PyMem_SetAllocator(domain_of(d), &before[domain_of(d)]);
        PyMem_GetAllocator(domain_of(d), &now);
        CHECK(same_table(&now, &before[domain_of(d)]));
        FACT("%s: ctx is %s", d->name, now.ctx ? "set" : "NULL");
    }
    FACT("mem and obj begin with %s table",
         same_table(&before[PYMEM_DOMAIN_MEM], &before[PYMEM_DOMAIN_OBJ]) ? "one" : "their own");
}

static void unknown_domains(void)
{
    static const int unknown[] = {3, 4, 77, -1, 1 << 30};
    PyMemAllocatorEx before[3], now, none = {0};
    FOR_EACH_DOMAIN(d)
        PyMem_GetAllocator(domain_of(d), &before[domain_of(d)]);
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        memset(&now, 0x5A, sizeof now);
        PyMem_GetAllocator((PyMemAllocatorDomain)unknown[i], &now);
        CHECK(same_table(&now, &none));
        PyMem_SetAllocator((PyMemAllocatorDomain)unknown[i], &none);
    }
    FOR_EACH_DOMAIN(d) {
        PyMem_GetAllocator(domain_of(d), &now);
        CHECK(same_table(&now, &before[domain_of(d)]));
    }
}

/* Every call as it was made: nothing is rounded, omitted or added. */
static void exact(const struct domain *d)
{
    struct hook hook;
    hook_on(&hook, domain_of(d));
    for (int i = 0; i < SIZES; i++) {
        size_t n = sizes[i];
        void *p = d->malloc(n), *q = d->realloc(p, n + 1);
        CHECK(last_was(&hook, REALLOC, p, n + 1, 0) && hook.last.result == q && q);
        p = d->realloc(q, 0);
        CHECK(last_was(&hook, REALLOC, q, 0, 0) && hook.last.result == p && p);
        d->free(p);
        CHECK(last_was(&hook, FREE, p, 0, 0));
        p = d->malloc(n);
        CHECK(last_was(&hook, MALLOC, NULL, n, 0) && hook.last.result == p && p);
        q = d->calloc(n, 3);
        CHECK(last_was(&hook, CALLOC, NULL, n, 3) && hook.last.result == q && q);
        d->free(q);
        q = d->calloc(3, n);
        CHECK(last_was(&hook, CALLOC, NULL, 3, n) && hook.last.result == q && q);
        d->free(q);
        q = d->realloc(NULL, n);
        CHECK(last_was(&hook, REALLOC, NULL, n, 0) && hook.last.result == q && q);
        d->free(q);
        d->free(p);
    }
    d->free(NULL);
    CHECK(last_was(&hook, FREE, NULL, 0, 0));
    unsigned n = hook.all;
    hook_off(&hook);
    d->free(d->malloc(100));
    CHECK(hook.all == n); /* it is off */
    FACT("%s: %u, %u, %u, %u calls", d->name, hook.calls[MALLOC], hook.calls[CALLOC],
         hook.calls[REALLOC], hook.calls[FREE]);
}

static void too_much(const struct domain *d)
{
    static volatile size_t most = LARGEST_REQUEST, half = LARGEST_REQUEST / 2;
    struct hook hook;
    void *p = d->malloc(100);
    hook_on(&hook, domain_of(d));
    CHECK(d->malloc(most + 1) == NULL && d->malloc(SIZE_MAX) == NULL);
    CHECK(d->calloc(most + 1, 1) == NULL && d->calloc(1, most + 1) == NULL);
    CHECK(d->calloc(half + 1, 2) == NULL && d->calloc(SIZE_MAX, SIZE_MAX) == NULL);
    CHECK(d->realloc(p, most + 1) == NULL && d->realloc(NULL, SIZE_MAX) == NULL);
    CHECK(hook.all == 0);
    CHECK(d->malloc(most) == NULL && last_was(&hook, MALLOC, NULL, most, 0));
    CHECK(d->calloc(half, 2) == NULL && last_was(&hook, CALLOC, NULL, half, 2));
    CHECK(d->realloc(p, most) == NULL && last_was(&hook, REALLOC, p, most, 0));
    d->free(d->calloc(SIZE_MAX, 0));
    d->free(d->calloc(0, SIZE_MAX));
    FACT("%s: %u calls of 13 reach the table, and 2 frees", d->name,
         hook.all - hook.calls[FREE]);
    hook_off(&hook);
    d->free(p);
}

/* Two hooks on each domain; those of RAW receive what the others forward. */
static void nested(const struct domain *d, size_t n, const char *what)
{
    struct hook inner[3], outer[3];
    FOR_EACH_DOMAIN(each)
        hook_on(&inner[domain_of(each)], domain_of(each));
    FOR_EACH_DOMAIN(each)
        hook_on(&outer[domain_of(each)], domain_of(each));
    void *p = d->malloc(n);
    p = d->realloc(p, n + n / 2);
    fill(p, n + n / 2, n);
    void *q = d->calloc(2, n);
    CHECK(holds(p, n + n / 2, n));
    d->free(q);
    d->free(p);
    FOR_EACH_DOMAIN(each) {
        struct hook *in = &inner[domain_of(each)], *out = &outer[domain_of(each)];
        FACT("%s, %s: %s %u in, %u out", d->name, what, each->name, in->all, out->all);
        CHECK(in->all == 0 || (last_was(in, FREE, p, 0, 0) && last_was(out, FREE, p, 0, 0)));
        CHECK(in->all == 0 || out->last.when < in->last.when);
    }
    FOR_EACH_DOMAIN(each)
        hook_off(&outer[domain_of(each)]);
    d->free(d->malloc(n));
    CHECK(inner[domain_of(d)].all == 7);
    FOR_EACH_DOMAIN(each)
        hook_off(&inner[domain_of(each)]);
}

/* As CPython's own tests do it: no memory after n requests. */
static void no_memory(const struct domain *d)
{
    for (long n = 0; n < 12; n++) {
        struct hook hook;
        void *p[12];
        hook_on(&hook, domain_of(d));
        hook.left = n;
        long got = 0;
        for (int i = 0; i < 12; i++) {
            p[i] = i % 3 == 0   ? d->malloc(100 * i)
                   : i % 3 == 1 ? d->calloc(i, 100)
                                : d->realloc(NULL, 100 * i);
            got += p[i] != NULL;
            CHECK((p[i] != NULL) == (i < n));
        }
        CHECK(got == n && hook.all == 12);
        for (int i = 0; i < 12; i++)
            d->free(p[i]);
        hook_off(&hook);
    }
}

static void in_each_domain(void (*body)(const struct domain *d))
{
    FOR_EACH_DOMAIN(d)
        body(d);
    round_trip(); /* all is as it was */
}

static void all_exact(void) { in_each_domain(exact); }
static void all_too_much(void) { in_each_domain(too_much); }
static void all_without_memory(void) { in_each_domain(no_memory); }

static void both_nested(const struct domain *d)
{
    nested(d, 100, "small");
    nested(d, LARGE, "large");
}

static void all_nested(void) { in_each_domain(both_nested); }

CASES({"set-round-trip", round_trip},
      {"set-unknown-domains", unknown_domains},
      {"set-exact", all_exact},
      {"set-too-much", all_too_much},
      {"set-nested", all_nested},
      {"set-no-memory", all_without_memory});
