/* ways: so a pre host tsan
 *
 * Two thousand short-lived threads, a few at a time, each allocating every class, like a server
 * with a thread per request. Contents are checked and some blocks outlive their thread.
 * leftovers.c tests what remains. */
#include "harness.h"

enum { THREADS = 2000, AT_A_TIME = 8, CLASSES = 81 };

static void *survivors[THREADS];
static atomic_uint bad;

/* One size in every class, and one above them all. */
static size_t size_in(int class)
{
    return class < 32 ? (size_t)class * 16 + 9
                      : ((size_t)(9 + class % 8) << (6 + (class - 32) / 8)) - 5;
}

static void work(size_t number)
{
    const struct domain *d = number % 2 ? &mem : &obj;
    void *p[CLASSES];
    for (int i = 0; i < CLASSES; i++) {
        p[i] = d->malloc(size_in(i));
        fill(p[i], i % 8 ? 9 : size_in(i), number + i);
    }
    for (int i = 0; i < CLASSES; i++) {
        bad += !holds(p[i], i % 8 ? 9 : size_in(i), number + i);
        if (i == (int)(number % CLASSES))
            survivors[number] = p[i];
        else
            d->free(p[i]);
    }
}

static void *thread(void *argument)
{
    LOCKED(work((uintptr_t)argument));
    return NULL;
}

static void run_threads(void)
{
    pthread_t threads[AT_A_TIME];
    for (uintptr_t i = 0; i < THREADS + AT_A_TIME; i++) {
        if (i >= AT_A_TIME)
            pthread_join(threads[i % AT_A_TIME], NULL);
        if (i < THREADS)
            CHECK(pthread_create(&threads[i % AT_A_TIME], NULL, thread, (void *)i) == 0);
    }
}

static void many_short_threads(void)
{
    STEP("many short threads") {
        UNLOCKED(run_threads());
        CHECK(bad == 0);
    }
    STEP("blocks that outlive their thread") {
        for (size_t i = 0; i < THREADS; i++) {
            bad += !holds(survivors[i], 9, i + i % CLASSES);
            obj.free(survivors[i]);
        }
        CHECK(bad == 0);
    }
    FACT("%d threads, %u bad", THREADS, (unsigned)bad);
}

CASES({"churn", many_short_threads});
