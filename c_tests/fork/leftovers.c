/* ways: so a pre
 *
 * A forked child does not have the parent's other threads, and so not their end-of-thread work:
 * the blocks in their magazines must not be lost for good, nor their records, or a server that
 * forks from generation to generation leaks. New threads of the child take them over. */
#include "stats.h"

enum { THREADS = 8, GENERATIONS = 4 };

static pthread_barrier_t filled, leave;

static void *thread(void *argument)
{
    void *p[120];
    for (int i = 0; i < 120; i++) /* leaves magazines of many classes filled */
        fill(p[i] = obj.malloc(i * i), i < 8 ? 0 : 64, i);
    for (int i = 0; i < 120; i++) {
        CHECK(holds(p[i], i < 8 ? 0 : 64, i));
        obj.free(p[i]);
    }
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&leave);
    return argument;
}

static void begin_threads(pthread_t *threads)
{
    pthread_barrier_init(&filled, NULL, THREADS + 1);
    pthread_barrier_init(&leave, NULL, THREADS + 1);
    start_threads(THREADS, threads, thread);
    pthread_barrier_wait(&filled);
}

static void end_threads(pthread_t *threads)
{
    pthread_barrier_wait(&leave);
    join_threads(THREADS, threads);
}

/* Records of threads that there are. */
static long long records_now(void)
{
    return number_at(value_of(stats_text, stats_text + strlen(stats_text), "threads"));
}

/* Each generation forks the next one while its own threads are there. */
static void generation(void *number)
{
    pthread_t threads[THREADS];
    read_stats();
    long long records = records_now();
    begin_threads(threads);
    read_stats();
    if (number) /* not in the first: the records are new */
        CHECK(records_now() <= records);
    CHECK(total_of_classes("blocks_in_magazines") > 0);
    if ((uintptr_t)number < GENERATIONS)
        CHECK(in_child(generation, (void *)((uintptr_t)number + 1)) == 0);
    end_threads(threads);
    read_stats();
    CHECK(total_of_classes("blocks_in_magazines") == 0); /* main has none */
    CHECK(total_of_classes("blocks_live") == 0);
}

static void from_generation_to_generation(void)
{
    generation(NULL);
}

CASES({"leftovers-of-threads", from_generation_to_generation});
