/* ways: so a pre valgrind
 *
 * Small blocks of MEM and OBJ passed to the RAW functions. CPython would pass them to the C
 * library and die, so this goes beyond the contract: where CPython's RAW allocator is swapped for
 * a moment (start, end, fork), blocks do cross, and an address test costs nothing. */
#include "harness.h"
#include "stats.h"

static void given_to_raw(const struct domain *d)
{
    for (size_t n = 1; n <= MEDIUM_MAX; n += n < 600 ? 1 : 331) {
        void *p[4];
        for (int i = 0; i < 4; i++)
            fill(p[i] = d->malloc(n), n, n + i);
        raw.free(p[0]);
        raw.free(p[2]);
        p[1] = raw.realloc(p[1], n * 2);
        p[3] = raw.realloc(p[3], n / 2);
        CHECK(holds(p[1], n, n + 1) && holds(p[3], n / 2, n + 3));
        raw.free(p[1]);
        d->free(p[3]);
    }
}

static void small_blocks_to_raw(void)
{
    read_stats();
    long long before = total_of_classes("blocks_live");
    STEP("mem") given_to_raw(&mem);
    STEP("obj") given_to_raw(&obj);
    read_stats();
    CHECK(total_of_classes("blocks_live") == before);
}

CASES({"small-blocks-to-raw", small_blocks_to_raw});
