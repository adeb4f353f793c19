/* ways: so a pre valgrind
 *
 * Calls before main and after it: from .preinit_array (before all constructors, the library's
 * too), from an early and a late constructor, from atexit and from destructors. Blocks live across
 * all of these. */
#include "harness.h"

enum { STAGES = 3, BLOCKS = 40 };

static void *kept[STAGES][BLOCKS];

static size_t size_of(int i)
{
    return (size_t)i * i * 30; /* 0 to 45630: all tiers */
}

static void allocate(int stage)
{
    for (int i = 0; i < BLOCKS; i++) {
        const struct domain *d = domains[i % 3];
        d->free(d->malloc(size_of(i)));
        d->free(NULL);
        kept[stage][i] = d->realloc(d->calloc(1, size_of(i) / 2), size_of(i));
        fill(kept[stage][i], size_of(i), stage + i);
    }
}

static void give_back(int stage, const char *when)
{
    unsigned bad = 0;
    for (int i = 0; i < BLOCKS; i++) {
        bad += !holds(kept[stage][i], size_of(i), stage + i);
        domains[i % 3]->free(kept[stage][i]);
    }
    CHECK(bad == 0);
    FACT("%s: %d blocks, %u bad", when, BLOCKS, bad);
}

static bool chosen; /* the other cases of the program must find nothing done */

static void at_preinit(void)
{
    chosen = is_case("constructor");
    if (chosen)
        allocate(0);
}

RUNS_FIRST(at_preinit);

__attribute__((constructor(101))) static void early(void)
{
    if (chosen)
        allocate(1);
}

__attribute__((constructor)) static void late(void)
{
    if (chosen)
        allocate(2);
}

static void at_exit(void)
{
    give_back(1, "atexit, blocks of the early constructor");
    allocate(1);
}

/* The last of all. main's status is fixed by now, so end with our own. */
__attribute__((destructor(101))) static void last(void)
{
    if (!chosen)
        return;
    give_back(0, "last destructor, blocks of .preinit_array");
    give_back(1, "last destructor, blocks of atexit");
    fflush(stdout);
    if (failures)
        _exit(exit_status());
}

static void constructor(void)
{
    atexit(at_exit);
    give_back(2, "main, blocks of the late constructor");
}

CASES({"constructor", constructor});
