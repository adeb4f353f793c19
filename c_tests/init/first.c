/* ways: so a pre host
 *
 * Each operation, with odd arguments too, as the very first of a process and of a thread: the
 * first one finds nothing initialised and takes a path of its own. Each runs in a child, before
 * the parent has made a call. */
#include "harness.h"

struct first {
    const struct domain *domain;
    const char *name;
    void (*operation)(const struct domain *d, size_t n);
    size_t n;
};

static void free_null(const struct domain *d, size_t n)
{
    (void)n;
    d->free(NULL);
}

static void free_foreign(const struct domain *d, size_t n)
{
    d->free(malloc(n));
}

static void realloc_foreign(const struct domain *d, size_t n)
{
    void *p = malloc(n);
    fill(p, n, 1);
    p = d->realloc(p, n * 3);
    CHECK(p != NULL && holds(p, n, 1));
    d->free(p);
}

static void malloc_first(const struct domain *d, size_t n)
{
    void *p = d->malloc(n);
    CHECK(p != NULL);
    fill(p, n, 2);
    CHECK(holds(p, n, 2));
    d->free(p);
}

static void calloc_first(const struct domain *d, size_t n)
{
    char *p = d->calloc(n, 3);
    CHECK(p != NULL && (n == 0 || (p[0] == 0 && p[3 * n - 1] == 0)));
    d->free(p);
}

static void realloc_first(const struct domain *d, size_t n)
{
    void *p = d->realloc(NULL, n);
    CHECK(p != NULL);
    p = d->realloc(p, n * 2);
    CHECK(p != NULL);
    d->free(p);
}

static void too_much(const struct domain *d, size_t n)
{
    CHECK(d->malloc(n) == NULL);
    CHECK(d->calloc(n, n) == NULL);
    CHECK(d->realloc(NULL, n) == NULL);
}

static const struct {
    const char *name;
    void (*operation)(const struct domain *d, size_t n);
    size_t n[8]; /* ends with the second 0 */
} operations[] = {
    {"free(NULL)", free_null, {0}},
    {"free of a foreign block", free_foreign, {1, 40, 1000, 500000}},
    {"realloc of a foreign block", realloc_foreign, {1, 40, 1000, 500000}},
    {"malloc", malloc_first, {0, 1, 512, 513, 32768, 32769, 2000000}},
    {"calloc", calloc_first, {0, 1, 170, 171, 10922, 10923, 700000}},
    {"realloc(NULL)", realloc_first, {0, 1, 256, 512, 16384, 16385, 2000000}},
    {"too much", too_much, {SIZE_MAX, LARGEST_REQUEST + 1, LARGEST_REQUEST}},
};

static void go_on(void)
{
    void *p[200];
    for (size_t i = 0; i < 200; i++)
        fill(p[i] = domains[i % 3]->malloc(i * 5), i * 5, i);
    for (size_t i = 0; i < 200; i++) {
        CHECK(holds(p[i], i * 5, i));
        domains[i % 3]->free(p[i]);
    }
}

static void first_of_process(void *argument)
{
    const struct first *f = argument;
    f->operation(f->domain, f->n);
    go_on();
}

static void *run_thread(void *argument)
{
    LOCKED(first_of_process(argument));
    return NULL;
}

static void first_of_thread(void *argument)
{
    pthread_t thread;
    for (int i = 0; i < 2; i++) { /* the second finds what the first left */
        pthread_create(&thread, NULL, run_thread, argument);
        UNLOCKED(pthread_join(thread, NULL));
    }
}

static void first_operation(void)
{
    unsigned children = 0;
    for (size_t o = 0; o < sizeof operations / sizeof *operations; o++)
        STEP(operations[o].name)
            FOR_EACH_DOMAIN(d)
                for (size_t i = 0; i < 8 && (i == 0 || operations[o].n[i]); i++) {
                    struct first f = {d, operations[o].name, operations[o].operation,
                                      operations[o].n[i]};
                    CHECK(in_child(first_of_process, &f) == 0);
                    CHECK(in_child(first_of_thread, &f) == 0);
                    children += 2;
                }
    FACT("%u children", children);
}

CASES({"first-operation", first_operation});
