/* ways: so a pre host tsan
 *
 * Allocators that change while other threads allocate. Nothing stops those threads, as in CPython,
 * so a call may get the new function with the old ctx; the wrappers here allow that. No block is
 * lost, and the ctx is one of the two. Then all threads under the debug hooks. */
#include "hooks.h"

extern int _PyObject_DebugMallocStats(FILE *out);

enum { WORKERS = 3, BLOCKS = 200, LARGE = MEDIUM_MAX + 1 };

static PyMemAllocatorEx first[3];
static int marks[3];
static atomic_uint calls[3], wrong;

static void called(PyMemAllocatorDomain domain, int *mark)
{
    calls[domain]++;
    wrong += mark != first[domain].ctx && mark != &marks[domain];
}

#define WRAPPER(of, DOMAIN)                                     \
    static void *of##_malloc(void *ctx, size_t n)               \
    {                                                           \
        called(DOMAIN, ctx);                                    \
        return first[DOMAIN].malloc(first[DOMAIN].ctx, n);      \
    }                                                           \
    static void *of##_calloc(void *ctx, size_t n, size_t m)     \
    {                                                           \
        called(DOMAIN, ctx);                                    \
        return first[DOMAIN].calloc(first[DOMAIN].ctx, n, m);   \
    }                                                           \
    static void *of##_realloc(void *ctx, void *p, size_t n)     \
    {                                                           \
        called(DOMAIN, ctx);                                    \
        return first[DOMAIN].realloc(first[DOMAIN].ctx, p, n);  \
    }                                                           \
    static void of##_free(void *ctx, void *p)                   \
    {                                                           \
        called(DOMAIN, ctx);                                    \
        first[DOMAIN].free(first[DOMAIN].ctx, p);               \
    }

WRAPPER(raw, PYMEM_DOMAIN_RAW)
WRAPPER(mem, PYMEM_DOMAIN_MEM)
WRAPPER(obj, PYMEM_DOMAIN_OBJ)

static PyMemAllocatorEx wrappers[3] = {
    {&marks[0], raw_malloc, raw_calloc, raw_realloc, raw_free},
    {&marks[1], mem_malloc, mem_calloc, mem_realloc, mem_free},
    {&marks[2], obj_malloc, obj_calloc, obj_realloc, obj_free},
};

static atomic_bool done;

static bool changes; /* a thread changes the tables meanwhile */

/* On a busy machine that thread may have to wait for its first turn. */
static bool goes_on(unsigned round)
{
    return round < 20000 || (changes && round < 2000000 && !(calls[0] && calls[1] && calls[2]));
}

static void *work(void *argument)
{
    uint64_t seed = 88172645463325252u + (size_t)argument;
    static char *all[WORKERS][BLOCKS];
    static size_t all_sizes[WORKERS][BLOCKS];
    char **p = all[(size_t)argument];
    size_t *sizes = all_sizes[(size_t)argument];
    unsigned bad = 0;
    for (unsigned round = 0; goes_on(round); round++) {
        size_t i = random_below(&seed, BLOCKS), n = random_below(&seed, 600);
        const struct domain *d = domains[i % 3]; /* each block keeps to its own */
        n = round % 50 ? n : LARGE + n;
        size_t kept = n < sizes[i] ? n : sizes[i];
        bad += p[i] && !holds(p[i], sizes[i], i);
        if (p[i] && round % 3) {
            LOCKED(p[i] = d->realloc(p[i], n));
            bad += !holds(p[i], kept, i);
        } else {
            LOCKED(d->free(p[i]));
            LOCKED(p[i] = round % 2 ? d->malloc(n) : d->calloc(n, 1));
        }
        fill(p[i], n, i);
        sizes[i] = n;
    }
    for (int i = 0; i < BLOCKS; i++) {
        bad += p[i] && !holds(p[i], sizes[i], i);
        LOCKED(domains[i % 3]->free(p[i]));
        p[i] = NULL;
    }
    CHECK(bad == 0);
    return NULL;
}

static void *change(void *unused)
{
    for (unsigned i = 0; !done; i++) {
        PyMemAllocatorDomain domain = (PyMemAllocatorDomain)(i / 2 % 3);
        LOCKED(PyMem_SetAllocator(domain, i % 2 ? &wrappers[domain] : &first[domain]));
        if (i % 8 == 0)
            usleep(1);
    }
    FOR_EACH_DOMAIN(d)
        LOCKED(PyMem_SetAllocator(domain_of(d), &first[domain_of(d)]));
    return unused;
}

static void *ask(void *unused)
{
    while (!done) {
        FILE *null = fopen("/dev/null", "w");
        LOCKED(_PyObject_DebugMallocStats(null));
        fclose(null);
        usleep(1000);
    }
    return unused;
}

static void run(void *(*meanwhile)(void *))
{
    pthread_t other, workers[WORKERS];
    done = false;
    CHECK(pthread_create(&other, NULL, meanwhile, NULL) == 0);
    start_threads(WORKERS, workers, work);
    UNLOCKED({
        join_threads(WORKERS, workers);
        done = true;
        pthread_join(other, NULL);
    });
}

static void keep_first(void)
{
    FOR_EACH_DOMAIN(d)
        PyMem_GetAllocator(domain_of(d), &first[domain_of(d)]);
}

static void with_debug_hooks(void)
{
    keep_first();
    PyMem_SetupDebugHooks();
    run(ask);
}

static void changing(void)
{
    keep_first();
    changes = true;
    run(change);
    CHECK(calls[0] > 0 && calls[1] > 0 && calls[2] > 0);
    CHECK(wrong == 0);
}

CASES({"threads-while-it-changes", changing}, {"threads-with-debug-hooks", with_debug_hooks});
