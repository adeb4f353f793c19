/* ways: so a pre
 *
 * Fork handlers that wait for threads, as thread pools register them: such a thread may need a
 * lock of the library before it ends. The handlers are registered before the library's own, before
 * its first use and after it. Handlers older than the library's run while it holds all locks for
 * the fork. */
#include "harness.h"

enum { WORKERS = 2, FORKS = 3 };

static pthread_t workers[WORKERS];
static bool armed;
static atomic_bool stop;
static atomic_int started, ended;
static int waited_for;
static bool polls;

/* The blocks that it frees at its end pass its magazines, the depot and the pools. */
static void *works(void *argument)
{
    void *mine[600];
    started++;
    while (!stop)
        usleep(200);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 600; i++)
            fill(mine[i] = obj.malloc(40 * (1 + i % 20)), 40, i);
        for (size_t i = 0; i < 600; i++) {
            CHECK(holds(mine[i], 40, i));
            obj.free(mine[i]);
        }
    }
    obmalloc_trim(0);
    ended++;
    return argument;
}

static void begin(void)
{
    stop = false;
    started = ended = 0;
    armed = true;
    start_threads(WORKERS, workers, works);
    while (started < WORKERS)
        usleep(100);
}

static void wait_for_workers(void)
{
    if (!armed)
        return;
    armed = false;
    stop = true;
    while (polls && ended < WORKERS) /* takes some processor time again and again */
        usleep(5000);
    join_threads(WORKERS, workers);
    waited_for++;
}

static void in_the_child(void *argument)
{
    void *mine[600];
    for (size_t i = 0; i < 600; i++)
        fill(mine[i] = obj.malloc(40 * (1 + i % 20)), 40, i);
    for (size_t i = 0; i < 600; i++) {
        CHECK(holds(mine[i], 40, i));
        obj.free(mine[i]);
    }
}

/* ---- which handler it is ---- */

enum registered { BEFORE_THE_LIBRARY, BEFORE_ITS_USE, AFTER_ITS_USE };
static enum registered now;

static void oldest(void)
{
    if (now == BEFORE_THE_LIBRARY)
        wait_for_workers();
}

static void middle(void)
{
    if (now == BEFORE_ITS_USE)
        wait_for_workers();
}

static void newest(void)
{
    if (now == AFTER_ITS_USE)
        wait_for_workers();
}

static void before_everything(void)
{
    pthread_atfork(oldest, NULL, NULL);
}

RUNS_FIRST(before_everything);

static void forks(enum registered which, int n)
{
    now = which;
    for (int i = 0; i < n; i++) {
        const int before = waited_for;
        begin();
        CHECK(in_child(in_the_child, NULL) == 0);
        CHECK(waited_for == before + 1);
    }
}

static void handlers_that_wait(void)
{
    alarm(50);
    pthread_atfork(middle, NULL, NULL);
    obj.free(obj.malloc(1)); /* the first use */
    pthread_atfork(newest, NULL, NULL);
    STEP("registered after the first use") forks(AFTER_ITS_USE, FORKS);
    STEP("before it") forks(BEFORE_ITS_USE, FORKS);
    STEP("before the library's own") forks(BEFORE_THE_LIBRARY, FORKS);
    polls = true;
    STEP("a handler that looks again and again") forks(BEFORE_THE_LIBRARY, 1);
}

CASES({"handlers-that-wait-for-threads", handlers_that_wait});
