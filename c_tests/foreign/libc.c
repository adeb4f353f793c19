/* ways: so a pre host valgrind
 *
 * Pointers of the C library passed to the library's functions. CPython forwards pointers that are
 * not its own, so extensions with this bug work, and must go on working. */
#include "harness.h"
#include <malloc.h>

static const size_t sizes[] = {1,    16,   24,    100,   511,   512,    513,
                               1000, 4096, 32767, 32768, 32769, 100000, 3000000};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* By every function of the C library that makes a block. */
static void *foreign(int way, size_t n)
{
    void *p = NULL;
    switch (way) {
    case 0: p = malloc(n); break;
    case 1: p = calloc(n, 1); break;
    case 2: p = realloc(malloc(5), n); break;
    case 3: p = aligned_alloc(64, (n + 63) & ~(size_t)63); break;
    case 4: p = memalign(4096, n); break;
    case 5:
        if (posix_memalign(&p, 1 << 21, n) != 0) /* aligned as an arena is */
            p = NULL;
        break;
    }
    CHECK(p != NULL);
    return p;
}
enum { WAYS = 6 };

static void freed_by(const struct domain *d)
{
    for (int way = 0; way < WAYS; way++)
        for (int s = 0; s < SIZES; s++) {
            void *p = foreign(way, sizes[s]), *ours = d->malloc(sizes[s]);
            fill(p, sizes[s], 1);
            fill(ours, sizes[s], 2);
            d->free(p);
            CHECK(holds(ours, sizes[s], 2));
            d->free(ours);
        }
    d->free(strdup("a string"));
}

/* A foreign block stays foreign: only the C library can tell its size, and the program may free
 * it there in the end. */
static void resized_by(const struct domain *d)
{
    for (int way = 0; way < WAYS; way++)
        for (int from = 0; from < SIZES; from++)
            for (int to = 0; to < SIZES; to++) {
                size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
                void *p = foreign(way, sizes[from]);
                memset(p, from + 1, sizes[from] < 5000 ? sizes[from] : 5000);
                p = d->realloc(p, sizes[to]);
                kept = kept < 5000 ? kept : 5000;
                CHECK(p != NULL && *(char *)p == from + 1 &&
                      memcmp(p, (char *)p + 1, kept - 1) == 0);
                if ((from + to) % 2)
                    d->free(p);
                else
                    free(p);
            }
}

/* RAW blocks reach the object allocator by the same bug. */
static void raw_blocks(const struct domain *d)
{
    for (int s = 0; s < SIZES; s++) {
        d->free(raw.malloc(sizes[s]));
        d->free(raw.calloc(1, sizes[s]));
        void *p = raw.malloc(sizes[s]);
        fill(p, sizes[s], s);
        p = d->realloc(p, sizes[s] * 2);
        CHECK(p != NULL && holds(p, sizes[s], s));
        d->free(p);
    }
}

/* CPython takes blocks above 512 bytes from RAW, so they can be freed there; above 32 KiB the
 * library's blocks are the C library's, too. */
static void big_blocks(const struct domain *d)
{
    for (size_t n = SMALL_MAX + 1; n < 70000; n += 997) {
        raw.free(d->malloc(n));
        void *p = d->malloc(n);
        fill(p, n, n);
        p = raw.realloc(p, n + n / 2);
        CHECK(p != NULL && holds(p, n, n));
        raw.free(p);
    }
    for (size_t n = MEDIUM_MAX + 1; n < 300000; n += 9973) {
        void *p = d->malloc(n);
        CHECK(malloc_usable_size(p) >= n);
        free(p);
        free(d->calloc(n, 1));
        free(d->realloc(NULL, n));
    }
}

static void freed(void)
{
    FOR_EACH_DOMAIN(d)
        freed_by(d);
}

static void resized(void)
{
    FOR_EACH_DOMAIN(d)
        resized_by(d);
}

static void raw_blocks_everywhere(void)
{
    raw_blocks(&mem);
    raw_blocks(&obj);
}

static void big_blocks_to_raw(void)
{
    big_blocks(&mem);
    big_blocks(&obj);
}

CASES({"freed", freed},
      {"resized", resized},
      {"raw-blocks-to-mem-and-obj", raw_blocks_everywhere},
      {"big-blocks-to-raw", big_blocks_to_raw});
