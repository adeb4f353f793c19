/* ways: so a pre tsan
 *
 * Everything that the library does at once, from the very first call on: threads that begin and
 * end, hand blocks over, read statistics and trim, while the helper thread returns pages. Built
 * with ThreadSanitizer (`make tsan`) it finds data races; else it checks the blocks. */
#include "harness.h"

enum { THREADS = 4, ROUNDS = 60, BLOCKS = 300, HANDED = 64 };

static _Atomic(void *) handed[HANDED];
static atomic_int go;

static size_t size_of(int i)
{
    static const size_t sizes[] = {16, 48, 512, 512, 1024, 8192, 20000};
    return sizes[i % 7];
}

/* Exchanges a block of this thread for one that may be another thread's, and frees that. */
static void hand_over(int i, void *block)
{
    void *other = atomic_exchange(&handed[i % HANDED], block);
    PyObject_Free(other);
}

static void *short_lived(void *argument)
{
    void *blocks[40];
    for (int i = 0; i < 40; i++)
        fill(blocks[i] = PyObject_Malloc(size_of(i)), 16, i);
    for (int i = 0; i < 40; i++)
        i % 5 ? PyObject_Free(blocks[i]) : hand_over(i, blocks[i]);
    return argument;
}

static void *works(void *argument)
{
    uintptr_t me = (uintptr_t)argument;
    void *blocks[BLOCKS];
    char text[64];
    pthread_t thread;
    while (!atomic_load(&go))
        sched_yield();
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BLOCKS; i++)
            fill(blocks[i] = PyObject_Malloc(size_of(i + round)), 16, i + me);
        for (int i = 0; i < BLOCKS; i++)
            CHECK(holds(blocks[i], 16, i + me));
        for (int i = 0; i < BLOCKS; i++) {
            if (i % 16 == 3)
                blocks[i] = PyObject_Realloc(blocks[i], size_of(i + 2));
            i % 8 ? PyObject_Free(blocks[i]) : hand_over(i + round, blocks[i]);
        }
        if (me == 0)
            obmalloc_stats_json(text, sizeof text);
        if (me == 1 && round % 8 == 0)
            obmalloc_trim(round % 16 ? 1 << 20 : 0);
        if (me == 2 && round % 4 == 0) {
            CHECK(pthread_create(&thread, NULL, short_lived, NULL) == 0);
            pthread_join(thread, NULL);
        }
    }
    return NULL;
}

static void at_once(void)
{
    pthread_t threads[THREADS];
    start_threads(THREADS, threads, works);
    atomic_store(&go, 1);
    join_threads(THREADS, threads);
    for (int i = 0; i < HANDED; i++)
        hand_over(i, NULL);
}

/* How free memory is returned: by the helper thread, by ticks, at once, by a limit. */
static const char *const settings[][2] = {
    {"OBMALLOC_DECAY_MS", "4"}, {"OBMALLOC_BACKGROUND_THREAD", "0"},        {"OBMALLOC_DECAY_MS", "0"},
    {"OBMALLOC_SOFT_LIMIT", "auto"}, {"OBMALLOC_HARD_LIMIT", "auto"}, {"OBMALLOC_ALIGN", "8"},
};

/* Two threads make the first call. The settings are read by then, for both. */
static void *makes_first_call(void *argument)
{
    atomic_fetch_add(&go, 1);
    while (atomic_load(&go) < 2)
        ;
    PyObject_Free(PyObject_Malloc(400));
    return argument;
}

static void first_call(void *argument)
{
    pthread_t threads[2];
    setenv("OBMALLOC_STATS", "/dev/null", 1);
    start_threads(2, threads, makes_first_call);
    join_threads(2, threads);
}

static void with(void *number)
{
    for (size_t i = 0; i <= (uintptr_t)number; i++)
        setenv(settings[i][0], settings[i][1], 1);
    at_once();
}

static void first_calls(void)
{
    for (int i = 0; i < 40; i++)
        CHECK(in_child(first_call, NULL) == 0);
}

static void with_settings(void)
{
    for (uintptr_t i = 0; i < sizeof settings / sizeof *settings; i++)
        STEP(settings[i][0])
            CHECK(in_child(with, (void *)i) == 0);
}

CASES({"races-at-the-first-call", first_calls}, {"races", with_settings});
