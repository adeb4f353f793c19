/* ways: so a pre host tsan
 *
 * pthread_atfork handlers that allocate, registered before the library (by .preinit_array), before
 * its first use and after it. They run before and after the library's own handlers, some while it
 * holds its locks for the fork. */
#include "harness.h"

enum { FORKS = 20, EACH = 300 };

static int prepared, in_parents, in_children;
static bool armed;
static atomic_bool started, stop;

/* Enough of several classes to empty and overfill a thread's magazines, so
 * that the pools and their locks are needed, and some new arena too. */
static void work(void)
{
    static void *p[3][EACH];
    static const size_t sizes[3] = {48, 700, 9000};
    for (size_t i = 0; i < EACH; i++)
        for (int s = 0; s < 3; s++)
            fill(p[s][i] = obj.malloc(sizes[s]), 48, i);
    for (size_t i = 0; i < EACH; i++)
        for (int s = 0; s < 3; s++) {
            CHECK(holds(p[s][i], 48, i));
            obj.free(p[s][i]);
        }
}

static void prepare(void)
{
    if (armed) {
        prepared++;
        work();
    }
}

static void in_parent(void)
{
    if (armed) {
        in_parents++;
        work();
    }
}

static void in_the_child(void)
{
    if (armed) {
        in_children++;
        work();
    }
}

static void before_everything(void)
{
    pthread_atfork(prepare, in_parent, in_the_child);
}

RUNS_FIRST(before_everything);

static void child(void *argument)
{
    CHECK(in_children == 3);
    work();
}

static void fork_often(void)
{
    unsigned died = 0;
    prepared = in_parents = in_children = 0;
    armed = true;
    for (int i = 0; i < FORKS && died == 0; i++)
        died += in_child(child, NULL) != 0;
    armed = false;
    work();
    CHECK(died == 0);
    FACT("%d prepared, %d in the parent, %u of %d children died", prepared, in_parents, died,
         FORKS);
}

static void *churn(void *argument)
{
    THREAD_BEGIN;
    started = true;
    while (!stop)
        LOCKED(for (size_t n = 1; n < 20000; n += n / 2 + 9) obj.free(obj.malloc(n)));
    THREAD_END;
    return argument;
}

static void handlers_that_allocate(void)
{
    pthread_t thread;
    alarm(50);
    pthread_atfork(prepare, in_parent, in_the_child);
    work(); /* the first use, here or never the library registers its own */
    pthread_atfork(prepare, in_parent, in_the_child);
    STEP("handlers that allocate") fork_often();
    pthread_create(&thread, NULL, churn, NULL);
    UNLOCKED(while (!started) usleep(100));
    STEP("the same beside another thread") fork_often();
    stop = true;
    UNLOCKED(pthread_join(thread, NULL));
}

CASES({"handlers", handlers_that_allocate});
