/* Several threads: each with blocks of its own, or one taking what another one frees.
 * An operation is a malloc and a free, of all threads together: with two threads half
 * the time of one is the best that two processors can do. */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>

enum { MOST = 4, LIVE = 1000, LINE = 64, RING = 1024, HANDFUL = 32 };

/* A bounded queue of one writer and one reader. The counters only grow, and the
 * two ends write to different cache lines. */
struct ring {
    alignas(LINE) atomic_size_t put;
    alignas(LINE) atomic_size_t got;
    alignas(LINE) void *blocks[RING];
};

static struct ring rings[MOST / 2];
static struct tally tallies[MOST];
static pthread_barrier_t start;
static size_t operations;       /* of each thread that allocates, a multiple of HANDFUL */

/* The last one to be ready starts the clock. */
static void all_ready(void)
{
    if (pthread_barrier_wait(&start) == PTHREAD_BARRIER_SERIAL_THREAD)
        begin();
}

static void *on_its_own(void *number)
{
    struct tally tally = {0, 0};
    void *blocks[LIVE];
    uint64_t chance = SEED + (uintptr_t)number;
    for (int i = 0; i < LIVE; i++)
        blocks[i] = take(&tally, python_size(random_word(&chance)), i);
    all_ready();
    for (size_t i = 0; i < operations; i++) {
        random_word(&chance);
        size_t slot = (chance >> 32) * LIVE >> 32;
        give(&tally, blocks[slot]);
        blocks[slot] = take(&tally, python_size(chance), i);
    }
    for (int i = 0; i < LIVE; i++)
        give(&tally, blocks[i]);
    tallies[(uintptr_t)number] = tally;
    return NULL;
}

/* Waits until the other end's counter differs from `old`, and returns it. There may be more
 * threads than processors, so a long wait yields the processor. */
static size_t changed(atomic_size_t *counter, size_t old)
{
    size_t now;
    for (int looks = 1; (now = atomic_load_explicit(counter, memory_order_acquire)) == old; looks++)
        if (looks % 256 == 0)
            sched_yield();
        else
            __builtin_ia32_pause();
    return now;
}

static void *producer(void *number)
{
    struct tally tally = {0, 0};
    struct ring *ring = &rings[(uintptr_t)number / 2];
    uint64_t chance = SEED + (uintptr_t)number;
    all_ready();
    for (size_t put = 0, got = 0; put < operations;) {
        while (put + HANDFUL - got > RING)
            got = changed(&ring->got, got);
        for (int i = 0; i < HANDFUL; i++, put++)
            ring->blocks[put % RING] = take(&tally, python_size(random_word(&chance)), put);
        atomic_store_explicit(&ring->put, put, memory_order_release);
    }
    tallies[(uintptr_t)number] = tally;
    return NULL;
}

static void *consumer(void *number)
{
    struct tally tally = {0, 0};
    struct ring *ring = &rings[(uintptr_t)number / 2];
    all_ready();
    for (size_t put = 0, got = 0; got < operations;) {
        if (got == put)
            put = changed(&ring->put, put);
        for (int i = 0; i < HANDFUL; i++, got++)
            give(&tally, ring->blocks[got % RING]);
        atomic_store_explicit(&ring->got, got, memory_order_release);
    }
    tallies[(uintptr_t)number] = tally;
    return NULL;
}

/* Threads with even numbers do the one, those with odd numbers the other. */
static void run(const struct row *row, size_t rounds, void *(*even)(void *), void *(*odd)(void *))
{
    pthread_t threads[MOST];
    operations = (rounds + HANDFUL - 1) / HANDFUL * HANDFUL;
    pthread_barrier_init(&start, NULL, row->threads);
    for (uintptr_t i = 0; i < (uintptr_t)row->threads; i++)
        if (pthread_create(&threads[i], NULL, i % 2 ? odd : even, (void *)i) != 0)
            give_up("no thread");
    for (int i = 0; i < row->threads; i++)
        pthread_join(threads[i], NULL);
    end(operations * (even == odd ? row->threads : row->threads / 2));
    for (int i = 0; i < row->threads; i++)
        answer(tallies[i]);
}

static void apart(const struct row *row, size_t rounds)
{
    run(row, rounds, on_its_own, on_its_own);
}

static void hand_over(const struct row *row, size_t rounds)
{
    run(row, rounds, producer, consumer);
}

const struct row thread_rows[] = {
    {"1 thread", apart, 4000000, 0, 0, 1},
    {"2 threads apart", apart, 4000000, 0, 0, 2},
    {"4 threads apart", apart, 2000000, 0, 0, 4},
    {"1 pair of threads, handed over", hand_over, 2000000, 0, 0, 2},
    {"2 pairs of threads, handed over", hand_over, 1000000, 0, 0, 4},
    {0},
};
