/* ways: so a pre
 *
 * Memory that forty threads keep after they have worked and while they wait: how many bytes more
 * than one thread keeps, some time after all blocks are free, and where. The bound is generous, to
 * notice a leak. The figures go to stderr: VERBOSE=1 shows them. */
#include "resident.h"

enum { THREADS = 40, SLOTS = 1000, STEPS = 15000 };
enum { BOUND = 8192 }; /* OS pages: each may hold a block that a thread has cached */

static pthread_barrier_t done, leave;
static size_t largest;

/* Allocates and frees blocks of all classes; in the end frees all. */
static void *busy_then_waiting(void *argument)
{
    static struct slot { void *p; size_t n; } all[THREADS][SLOTS];
    struct slot *slots = all[(uintptr_t)argument];
    uint64_t random = 7919 + (uintptr_t)argument;
    size_t bad = 0;
    for (size_t step = 0; step < STEPS; step++) {
        const size_t i = random_below(&random, SLOTS);
        bad += slots[i].p && !holds(slots[i].p, slots[i].n < 64 ? slots[i].n : 64, i);
        obj.free(slots[i].p);
        slots[i].n = random_below(&random, largest + 1);
        memset(slots[i].p = obj.malloc(slots[i].n), 0x55, slots[i].n);
        fill(slots[i].p, slots[i].n < 64 ? slots[i].n : 64, i);
    }
    for (size_t i = 0; i < SLOTS; i++)
        obj.free(slots[i].p);
    CHECK(bad == 0);
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&leave);
    return NULL;
}

/* ---- figures ---- */

static const char *const places[] = {"in_magazines", "free_in_pools", "empty_pools", "metadata"};

struct figures { long long process, total, at[4]; };

static struct figures figures_now(void)
{
    struct figures figures = {.process = (long long)resident()};
    read_stats();
    figures.total = stat_of("resident", "total");
    for (int i = 0; i < 4; i++)
        figures.at[i] = stat_of("resident", places[i]);
    CHECK(stat_of("resident", "live") == 0);
    return figures;
}

/* No more pages will be returned: the helper has run and ended, or was not needed; or where there
 * is none, the program has trimmed. */
static struct figures when_idle(int threads)
{
    if (strcmp(getenv("OBMALLOC_DECAY_MS"), "-1") == 0)
        obmalloc_trim(0);
    else
        usleep(500000);
    CHECK(COMES(threads_now() == threads, PATIENCE));
    return figures_now();
}

static void say_more(struct figures one, struct figures many)
{
    fprintf(stderr, "%d threads, blocks to %zu bytes, KiB in memory (with one thread):\n"
            "   process %lld (%lld), ours %lld (%lld)", THREADS, largest, many.process >> 10,
            one.process >> 10, many.total >> 10, one.total >> 10);
    for (int i = 0; i < 4; i++)
        fprintf(stderr, ", %s %lld (%lld)", places[i], many.at[i] >> 10, one.at[i] >> 10);
    fprintf(stderr, "\n");
}

static void many_against_one(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&leave, NULL, THREADS + 1);
    struct figures one = {0};
    for (uintptr_t i = 0; i < THREADS; i++) {
        if (i < 2) /* the first alone, then all others at once */
            pthread_barrier_init(&done, NULL, i == 0 ? 2 : THREADS);
        CHECK(pthread_create(&threads[i], NULL, busy_then_waiting, (void *)i) == 0);
        if (i == 0) {
            pthread_barrier_wait(&done);
            one = when_idle(2);
        }
    }
    pthread_barrier_wait(&done);
    const struct figures many = when_idle(THREADS + 1);
    say_more(one, many);
    const long long bound = (long long)BOUND * sysconf(_SC_PAGESIZE);
    CHECK(many.process - one.process < bound && many.total - one.total < bound);
    pthread_barrier_wait(&leave);
    join_threads(THREADS, threads);
    obmalloc_trim(SIZE_MAX); /* empties the depots, no more */
    read_stats();
    CHECK(stat_of("resident", "in_magazines") == 0);
    obmalloc_trim(0);
    read_stats();
    CHECK(stat_of("resident", "total") == stat_of("resident", "metadata"));
}

static void small_blocks(void)
{
    largest = SMALL_MAX;
    many_against_one();
}

static void to_8_kib(void)
{
    largest = 8192;
    many_against_one();
}

CASES({"threads-blocks-to-512-bytes", small_blocks, ALL_POOLS "OBMALLOC_DECAY_MS=100"},
      {"threads-blocks-to-8-kib", to_8_kib, ALL_POOLS "OBMALLOC_DECAY_MS=100"},
      {"threads-blocks-to-512-bytes-trimmed", small_blocks, ALL_POOLS "OBMALLOC_DECAY_MS=-1"},
      {"threads-blocks-to-8-kib-trimmed", to_8_kib, ALL_POOLS "OBMALLOC_DECAY_MS=-1"});
