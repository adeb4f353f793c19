/* ways: so a pre host
 *
 * No memory left: child processes under RLIMIT_AS and RLIMIT_DATA allocate until they get NULL.
 * Their blocks stay intact, after a failed realloc too; once they free, they can allocate again.
 * Also from a start so tight that not even a first arena fits: then the C library serves or NULL
 * is returned, and nothing crashes. */
#include "harness.h"
#include <sys/resource.h>

enum { ROOM = 12 << 20 };

struct scenario {
    int resource;
    const char *resource_name, *what;
    size_t n;
    enum { MALLOC, CALLOC, REALLOC } by;
};

/* Field 1 of /proc/self/statm is all that is mapped, field 6 is data. */
static rlim_t used_now(int resource)
{
    unsigned long pages[6] = {0};
    FILE *statm = fopen("/proc/self/statm", "r");
    for (int i = 0; i < 6; i++)
        CHECK(fscanf(statm, "%lu", &pages[i]) == 1);
    fclose(statm);
    return (resource == RLIMIT_AS ? pages[0] : pages[5]) * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void limit(int resource, rlim_t bytes)
{
    struct rlimit limits;
    CHECK(getrlimit(resource, &limits) == 0);
    limits.rlim_cur = bytes; /* the soft one only: it can be raised again */
    CHECK(setrlimit(resource, &limits) == 0);
}

/* Live blocks form a chain through their first word; the rest is pattern. */
struct block {
    struct block *next;
    unsigned char rest[];
};

static struct block *allocate(const struct scenario *s)
{
    if (s->by == MALLOC)
        return obj.malloc(s->n);
    if (s->by == CALLOC)
        return obj.calloc(s->n / 8, 8);
    struct block *b = obj.malloc(s->n / 4);
    if (b == NULL)
        return NULL;
    fill(b, s->n / 4, 3);
    struct block *larger = obj.realloc(b, s->n);
    if (larger == NULL) {
        CHECK(holds(b, s->n / 4, 3)); /* failed: left as it was */
        obj.free(b);
        return NULL;
    }
    CHECK(holds(larger, s->n / 4, 3));
    return larger;
}

static size_t allocate_all(const struct scenario *s, struct block **chain)
{
    size_t count = 0;
    for (struct block *b; (b = allocate(s)); count++) {
        b->next = *chain;
        *chain = b;
        fill(b->rest, s->n - sizeof *b, count);
    }
    return count;
}

static void free_all(const struct scenario *s, struct block *chain, size_t count)
{
    size_t bad = 0;
    while (chain) {
        struct block *next = chain->next;
        bad += !holds(chain->rest, s->n - sizeof *chain, --count);
        obj.free(chain);
        chain = next;
    }
    CHECK(bad == 0 && count == 0);
}

static void until_null(void *argument)
{
    const struct scenario *s = argument;
    limit(s->resource, used_now(s->resource) + ROOM);
    size_t counts[3];
    for (int round = 0; round < 3; round++) {
        struct block *chain = NULL;
        counts[round] = allocate_all(s, &chain);
        CHECK(obj.malloc((size_t)ROOM * 2) == NULL);
        CHECK(chain == NULL || obj.realloc(chain, (size_t)ROOM * 2) == NULL);
        free_all(s, chain, counts[round]);
    }
    CHECK(counts[0] * s->n > ROOM / 4);
    CHECK(counts[1] > counts[0] / 2 && counts[2] > counts[0] / 2);
    FACT("%s, %s: full and empty again, three times", s->resource_name, s->what);
}

/* 200 KiB to live on: some requests succeed, some do not, all is well. Small
 * ones do: without an arena, the C library's heap still has room for them. */
static void tight_start(void *argument)
{
    const int resource = *(int *)argument;
    static const size_t sizes[] = {1, 16, 100, 512, 513, 4000, 32768, 32769, 1000000};
    limit(resource, used_now(resource) + (200 << 10));
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            FOR_EACH_DOMAIN(d) {
                void *p = d->malloc(sizes[i]), *q = d->calloc(1, sizes[i]);
                CHECK(p != NULL || sizes[i] > SMALL_MAX); /* stock's fallback */
                if (p)
                    fill(p, sizes[i], i);
                void *r = d->realloc(p, sizes[i] * 2);
                CHECK(q == NULL || *(char *)q == 0);
                CHECK((r ? r : p) == NULL || p == NULL || holds(r ? r : p, sizes[i], i));
                d->free(r ? r : p);
                d->free(q);
            }
    limit(resource, RLIM_INFINITY);
    for (size_t i = 0; i < 100000; i++) { /* the limit is gone: as ever */
        void *p = obj.malloc(i % 3000);
        CHECK(p != NULL);
        if (i % 100)
            obj.free(p);
    }
    FACT("a tight start, then plenty");
}

static void tight_starts(void)
{
    int as = RLIMIT_AS, data = RLIMIT_DATA;
    STEP("tight start, address space") CHECK(in_child(tight_start, &as) == 0);
    STEP("tight start, data") CHECK(in_child(tight_start, &data) == 0);
}

static void full(int resource, const char *name)
{
    struct scenario all[] = {
        {resource, name, "16 bytes", 16, MALLOC},
        {resource, name, "small", 480, MALLOC},
        {resource, name, "medium", 5000, MALLOC},
        {resource, name, "medium, the last class", 32768, MALLOC},
        {resource, name, "large", 300000, MALLOC},
        {resource, name, "small by calloc", 80, CALLOC},
        {resource, name, "large by calloc", 100000, CALLOC},
        {resource, name, "small by realloc", 400, REALLOC},
        {resource, name, "medium by realloc", 20000, REALLOC},
        {resource, name, "large by realloc", 160000, REALLOC},
    };
    for (size_t s = 0; s < sizeof all / sizeof *all; s++)
        STEP(all[s].what) CHECK(in_child(until_null, &all[s]) == 0);
}

static void full_address_space(void)
{
    full(RLIMIT_AS, "address space");
}

static void full_data(void)
{
    full(RLIMIT_DATA, "data");
}

CASES({"exhaustion-from-the-start", tight_starts},
      {"exhaustion-of-address-space", full_address_space},
      {"exhaustion-of-data", full_data});
