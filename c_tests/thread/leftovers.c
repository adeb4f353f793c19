/* ways: so a pre
 *
 * The blocks in a thread's magazines must be returned when it ends, or a program with many short
 * threads leaks. Also when destructors of the program's own thread keys allocate and free after
 * the library's destructor has run. */
#include "stats.h"

enum { THREADS = 600, AT_A_TIME = 6 };

static pthread_key_t key;
static bool with_destructor;

static void work(int rounds)
{
    void *p[90];
    for (int round = 0; round < rounds; round++) {
        int n = 0;
        for (size_t size = 16; size <= MEDIUM_MAX; size = next_class_size(size))
            p[n++] = obj.malloc(size);
        CHECK(n == 80);
        while (n > 0)
            obj.free(p[--n]);
    }
}

static void destructor(void *left)
{
    work(2);
    if ((uintptr_t)left > 1)
        pthread_setspecific(key, (void *)((uintptr_t)left - 1));
}

static void *thread(void *argument)
{
    if (with_destructor)
        pthread_setspecific(key, (void *)4); /* all rounds POSIX grants */
    work(3);
    return argument;
}

static void run_threads(void)
{
    pthread_t threads[AT_A_TIME];
    for (int i = 0; i < THREADS + AT_A_TIME; i++) {
        if (i >= AT_A_TIME)
            pthread_join(threads[i % AT_A_TIME], NULL);
        if (i < THREADS)
            CHECK(pthread_create(&threads[i % AT_A_TIME], NULL, thread, NULL) == 0);
    }
}

/* One thread at first: what the library sets up once is not a leftover. */
static void nothing_left(void)
{
    pthread_t one;
    pthread_create(&one, NULL, thread, NULL);
    pthread_join(one, NULL);
    read_stats();
    long long live = total_of_classes("blocks_live");
    long long cached = total_of_classes("blocks_in_magazines");
    long long metadata = stat_of("bytes", "metadata");

    run_threads();
    read_stats();
    CHECK(total_of_classes("blocks_live") == live);
    CHECK(total_of_classes("blocks_in_magazines") == cached);
    CHECK(stat_of("bytes", "live") == bytes_of_classes("blocks_live"));
    /* records of dead threads are used again: room for a dozen, not 600 */
    long long grown = stat_of("bytes", "metadata") - metadata;
    CHECK(grown < 12 * (metadata > 65536 ? metadata : 65536));
    CHECK(cached == 0 && live == 0); /* main has allocated nothing */
}

static void left_by_threads(void)
{
    CHECK(pthread_key_create(&key, destructor) == 0);
    nothing_left();
}

static void left_by_destructors(void)
{
    with_destructor = true;
    left_by_threads();
}

CASES({"leftovers", left_by_threads}, {"leftovers-of-destructors", left_by_destructors});
