/* ways: so a pre
 *
 * No call takes the lowest free descriptor, not for a moment: a program that closes 0 and opens
 * its input gets 0, while other threads allocate near a limit, or make statistics. One thread
 * looks at 0 all the time, which sees more than one that opens a file now and then. */
#include "harness.h"
#include <fcntl.h>
#include <malloc.h>

enum { BLOCKS = 500, MILLISECONDS = 200, AT_LEAST = 10000 };

static atomic_bool done;

/* Requests of up to 8 KiB, and some for the C library. Above 512 bytes the library checks whether
 * the program is large. */
static void *allocate(void *unused)
{
    static _Thread_local void *blocks[BLOCKS];
    for (unsigned round = 0; !done; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = obj.malloc(i % 100 == 0 ? 70000 : 1 + (size_t)i * 37 % 8000);
            if (blocks[i])
                *(char *)blocks[i] = 1;
        }
        for (int i = 0; i < BLOCKS; i++)
            obj.free(blocks[i]);
        obmalloc_stats_json(NULL, 0);
        if (round % 8 == 0)
            obmalloc_trim(0);
    }
    return unused;
}

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000;
}

static void look_while_others_allocate(void)
{
    pthread_t threads[2];
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1); /* its other arenas read a file when they shrink */
#endif
    obj.free(obj.malloc(1)); /* what happens at the first block happens before threads */
    start_threads(2, threads, allocate);
    close(0);
    unsigned taken = 0, looks = 0;
    for (long end = milliseconds() + MILLISECONDS; milliseconds() < end || looks < AT_LEAST;
         looks++)
        taken += fcntl(0, F_GETFD) != -1;
    CHECK(open("/dev/null", O_RDONLY) == 0);
    done = true;
    join_threads(2, threads);
    if (taken > 0)
        fprintf(stderr, "descriptor 0 was taken in %u of %u looks\n", taken, looks);
    CHECK(taken == 0);
}

CASES({"descriptors", look_while_others_allocate},
      {"descriptors-limit", look_while_others_allocate, "OBMALLOC_SOFT_LIMIT=2G"},
      {"descriptors-near-a-limit", look_while_others_allocate, "OBMALLOC_SOFT_LIMIT=8M"},
      {"descriptors-limit-auto", look_while_others_allocate, "OBMALLOC_SOFT_LIMIT=auto"},
      {"descriptors-hard-limit", look_while_others_allocate, "OBMALLOC_HARD_LIMIT=2G"},
      {"descriptors-near-a-hard-limit", look_while_others_allocate, "OBMALLOC_HARD_LIMIT=60M"},
      {"descriptors-guard", look_while_others_allocate, "OBMALLOC_GUARD_SAMPLE_RATE=50"},
      {"descriptors-stats-page", look_while_others_allocate, "OBMALLOC_STATS_PAGE=1"});
