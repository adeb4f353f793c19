/* ways: so a pre in tsan
 *
 * Threads that run at once never have blocks of the same pool, so that no two processors write to
 * one cache line; a block is returned to its pool, whichever thread frees it. In a CPython all
 * threads share their pools, because it has a GIL. */
#include "harness.h"
#ifndef HOST_CPYTHON
#include "stats.h"
#endif

enum { THREADS = 4, EACH = 3000, POOL = 1 << 16, SIZE = 48, ROUNDS = 3 };

static void *blocks[THREADS][EACH];
static atomic_uint arrived;

static void wait_for_all(unsigned round)
{
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < THREADS * round)
        sched_yield();
}

/* Each thread frees what its neighbour has, and takes as much again. */
static void *take_and_free(void *argument)
{
    uintptr_t me = (uintptr_t)argument;
    unsigned round = 0;
    for (int i = 0; i < EACH; i++)
        LOCKED(blocks[me][i] = PyObject_Malloc(SIZE));
    wait_for_all(++round);
    for (int n = 0; n < ROUNDS; n++) {
        void **theirs = blocks[(me + 1) % THREADS];
        for (int i = 0; i < EACH; i++)
            LOCKED(PyObject_Free(theirs[i]));
        wait_for_all(++round);
        for (int i = 0; i < EACH; i++)
            LOCKED(blocks[me][i] = PyObject_Malloc(SIZE));
        wait_for_all(++round);
    }
    return NULL;
}

static uintptr_t pool(void *block)
{
    return (uintptr_t)block / POOL;
}

/* Pairs of threads, the one of each twice, that have blocks of one pool. */
static int sharing(void)
{
    int pairs = 0;
    for (int one = 0; one < THREADS; one++)
        for (int other = 0; other < one; other++) {
            bool share = false;
            for (int i = 0; i < EACH && !share; i++)
                for (int j = 0; j < EACH && !share; j++)
                    share = pool(blocks[one][i]) == pool(blocks[other][j]);
            pairs += share;
        }
    return pairs;
}

static void run_threads(void *(*run)(void *))
{
    pthread_t threads[THREADS];
    start_threads(THREADS, threads, run);
    join_threads(THREADS, threads);
}

static void *take_only(void *argument)
{
    for (int i = 0; i < EACH; i++)
        LOCKED(blocks[(uintptr_t)argument][i] = PyObject_Malloc(SIZE));
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < THREADS)
        sched_yield();
    return NULL;
}

static void shards(void)
{
    STEP("every thread has pools of its own, or they share them") {
        UNLOCKED(run_threads(take_only));
#ifdef HOST_CPYTHON
        CHECK(sharing() > 0);
#else
        CHECK(sharing() == 0);
        read_stats();
        CHECK(stat_of("pools", "lanes") == THREADS);
#endif
        for (int i = 0; i < THREADS; i++)
            for (int j = 0; j < EACH; j++)
                PyObject_Free(blocks[i][j]);
        arrived = 0;
    }
    STEP("blocks that others have freed") {
        UNLOCKED(run_threads(take_and_free));
        for (int i = 0; i < THREADS; i++)
            for (int j = 0; j < EACH; j++) {
                memset(blocks[i][j], i, SIZE);
                PyObject_Free(blocks[i][j]);
            }
    }
}

CASES({"shards", shards});
