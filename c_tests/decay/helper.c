/* ways: so a pre
 *
 * Free pages are returned OBMALLOC_DECAY_MS after they were freed: by a helper thread that exists
 * while there are pages to return, or without one by the program's own calls. */
#include "arenas.h"
#include "resident.h"
#include <dlfcn.h>
#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static struct crowd crowd;

static long long returned(void)
{
    read_stats();
    return stat_of("resident", "returned_total");
}

/* Allocates 48 MiB and frees almost all. Returns the resident bytes before the free. */
static size_t come_and_go(void)
{
    join_crowd(&crowd, 48 * MIB, 100, 1000);
    const size_t peak = resident();
    leave_crowd(&crowd, 10);
    return peak;
}

static void some_come_and_go(void)
{
    void *p[200];
    for (int i = 0; i < 200; i++)
        p[i] = obj.malloc(400);
    for (int i = 0; i < 200; i++)
        obj.free(p[i]);
}

/* ---- with a helper ---- */

static void an_idle_program(void)
{
    for (int round = 0; round < 2; round++) {
        CHECK(COMES(helper_now() == 0, PATIENCE));
        const size_t peak = come_and_go();
        CHECK(COMES(helper_now() != 0, PATIENCE)); /* it stays for some intervals */
        CHECK(COMES(resident() + 24 * MIB < peak, PATIENCE));
        CHECK(crowd_holds(&crowd));
        CHECK(COMES(threads_now() == 1, PATIENCE)); /* nothing to do: it leaves */
        CHECK(returned() > 24 << 20);
    }
    join_crowd(&crowd, 48 * MIB, 1, 3000);
    CHECK(crowd_holds(&crowd));
}

static void a_small_program(void)
{
    for (const double end = seconds() + 0.7; seconds() < end;) {
        join_crowd(&crowd, 2 * MIB, 1, 1000);
        end_crowd(&crowd);
        CHECK(threads_now() == 1);
        usleep(5000);
    }
    CHECK(returned() == 0);
}

static _Atomic pid_t handled_by;
static atomic_int handled;

static void handler(int number)
{
    handled_by = (pid_t)syscall(SYS_gettid);
    handled++;
}

/* The helper blocks all signals, also those for the process that no other thread takes; except
 * the C library's own from 32 on, two of glibc and three of musl, and those that cannot be
 * blocked. */
static void signals(void)
{
    const pid_t self = getpid();
    sigset_t some, pending;
    char path[64];
    signal(SIGUSR1, handler);
    signal(SIGUSR2, handler);
    come_and_go();
    int helper; /* it gives itself its name, in a moment */
    CHECK(COMES((helper = helper_now()) != 0, PATIENCE));
    snprintf(path, sizeof path, "/proc/self/task/%d/status", helper);
    const char *blocked = strstr(text_of(path), "SigBlk:");
#ifdef __GLIBC__
    const uint64_t own = 3ull << 31;
#else
    const uint64_t own = 7ull << 31;
#endif
    const uint64_t open = 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1) | own;
    CHECK(blocked && strtoull(blocked + 7, NULL, 16) == ~open);
    sigemptyset(&some);
    sigaddset(&some, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &some, NULL);
    kill(self, SIGUSR2);
    int beside = 0; /* signals while the helper was there */
    for (int i = 0; i < 200; i++) {
        some_come_and_go(); /* it stays while something happens */
        const int before = handled;
        kill(self, SIGUSR1);
        CHECK(COMES(handled == before + 1, PATIENCE) && handled_by == self);
        beside += helper_now() == helper;
    }
    CHECK(beside > 0); /* on a busy machine it may leave in between */
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR2));
    pthread_sigmask(SIG_UNBLOCK, &some, NULL);
    CHECK(handled == 201 && handled_by == self);
    CHECK(setgid(getgid()) == 0); /* asks every thread, by such a signal */
}

/* Blocks that are allocated again and again keep their pages, and their arenas, though these are
 * empty for a moment; the pages and arenas of one peak are returned. */
static void used_again(void)
{
    struct rusage usage;
    long faults = 0, rounds = 0;
    long long mapped = 0;
    double now = seconds(), longest = 0;
    for (const double begin = now; now < begin + 3.2; rounds++) {
        join_crowd(&crowd, rounds == 2 ? 15 * MIB : 8 * MIB, 512, 512);
        end_crowd(&crowd);
        usleep(20000);
        const double before = now;
        now = seconds();
        longest = now - before > longest ? now - before : longest;
        if (rounds == 4) {
            getrusage(RUSAGE_SELF, &usage);
            faults = usage.ru_minflt;
            read_stats();
            mapped = stat_of("arenas", "mapped_total");
            CHECK(stat_of("arenas", "unmapped_total") == 0);
        }
    }
    getrusage(RUSAGE_SELF, &usage);
    read_stats();
    if (longest > 0.4) {
        fprintf(stderr, "used again: the machine is too busy to tell\n");
        return;
    }
    CHECK(rounds > 7 && usage.ru_minflt - faults < 300); /* 2048 pages a round */
    CHECK(stat_of("arenas", "unmapped_total") >= 3);
    CHECK(stat_of("arenas", "mapped_total") == mapped);
}

/* Only the program's own calls return arenas of its arena allocator, and none of their pages
 * are returned. */
static pthread_t main_thread;

static void in_main(void)
{
    CHECK(pthread_equal(pthread_self(), main_thread));
}

static void a_programs_arenas(void)
{
    main_thread = pthread_self();
    source.meanwhile = in_main;
    source_over(current_source());
    join_crowd(&crowd, 48 * MIB, 100, 1000);
    leave_crowd(&crowd, 10);
    const unsigned freed = source.freed;
    usleep(600000);
    CHECK(returned() == 0 && source.freed == freed);
    end_crowd(&crowd);
    const unsigned live = source.live;
    usleep(600000);
    CHECK(returned() == 0 && source.live == live);
}

/* Pages are returned all the time. */
static void *wave(void *argument)
{
    enum { N = 4000 };
    struct { void *p; size_t n; } *slots = calloc(N, sizeof *slots);
    uint64_t random = 5 + (uintptr_t)argument;
    size_t bad = 0;
    for (int round = 0; round < 40; round++)
        for (size_t i = 0; i < N; i++) {
            bad += slots[i].p && !holds(slots[i].p, slots[i].n, i);
            obj.free(slots[i].p);
            slots[i].p = NULL;
            if (random_below(&random, 100) < (round % 2 ? 95 : 5)) {
                slots[i].n = random_below(&random, 1500);
                fill(slots[i].p = obj.malloc(slots[i].n), slots[i].n, i);
            }
        }
    CHECK(bad == 0);
    free(slots);
    return NULL;
}

static void beside_threads(void)
{
    pthread_t threads[4];
    start_threads(4, threads, wave);
    join_threads(4, threads);
    CHECK(returned() > 0);
    come_and_go();
    CHECK(COMES(threads_now() == 1, PATIENCE) && crowd_holds(&crowd));
}

/* ---- threads that end ----
 *
 * The blocks in their magazines are freed when they end, and no call may follow. */

enum { ENDING = 250, OF_EACH = 140 };
static pthread_barrier_t filled, ending;

static void *have_much_at_hand(void *argument)
{
    for (size_t n = 16; n <= 512; n += 16) {
        void *p[OF_EACH];
        for (int i = 0; i < OF_EACH; i++)
            memset(p[i] = obj.malloc(n), 1, n);
        for (int i = 0; i < OF_EACH; i++)
            obj.free(p[i]);
    }
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&ending);
    return argument;
}

static void threads_that_end(void)
{
    pthread_t threads[ENDING];
    pthread_barrier_init(&filled, NULL, ENDING + 1);
    pthread_barrier_init(&ending, NULL, ENDING + 1);
    start_threads(ENDING, threads, have_much_at_hand);
    pthread_barrier_wait(&filled);
    CHECK(COMES(threads_now() == ENDING + 1, PATIENCE)); /* the helper has gone */
    read_stats();
    CHECK(stat_of("bytes", "in_magazines") > (long long)(5 * MIB));
    pthread_barrier_wait(&ending);
    join_threads(ENDING, threads);
    CHECK(COMES(free_and_resident() < (long long)(4 * MIB), PATIENCE));
    CHECK(COMES(threads_now() == 1, PATIENCE));
}

/* ---- without one ---- */

static atomic_int refused; /* how many threads were */
static atomic_bool refuse;

/* The library calls it, too, in every way that it is linked. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                   void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (refuse) {
        refused++;
        return EAGAIN;
    }
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, body, argument);
}

/* Pages are returned while the program works, even with few blocks. */
static void by_ticks(void)
{
    const size_t peak = come_and_go();
    CHECK(COMES_BY(some_come_and_go(), 1000, resident() + 24 * MIB < peak, PATIENCE,
                   1000)); /* 200 times are enough */
    CHECK(threads_now() == 1);
    CHECK(crowd_holds(&crowd));
}

/* The library does not try again at once; later there may be a helper. */
static void no_thread_to_be_had(void)
{
    const double begin = seconds();
    refuse = true;
    by_ticks();
    CHECK(refused > 0 && refused <= 1 + (seconds() - begin) / 4);
    refuse = false;
    int helper;
    for (const double end = seconds() + PATIENCE;
         (helper = helper_now()) == 0 && seconds() < end;) {
        end_crowd(&crowd);
        come_and_go();
    }
    CHECK(helper != 0);
}

static void never(void)
{
    const size_t peak = come_and_go();
    usleep(400000);
    CHECK(threads_now() == 1 && returned() == 0);
    CHECK(resident() + 8 * MIB > peak);
    CHECK(obmalloc_trim(0) > 24 * MIB);
    CHECK(resident() + 24 * MIB < peak);
    CHECK(crowd_holds(&crowd));
}

static void at_once(void)
{
    const size_t peak = come_and_go();
    CHECK(resident() + 24 * MIB < peak);
    CHECK(returned() > 24 << 20);
    CHECK(threads_now() == 1 && crowd_holds(&crowd));
    join_crowd(&crowd, 48 * MIB, 1, 3000);
    CHECK(crowd_holds(&crowd));
    end_crowd(&crowd);
    obmalloc_trim(SIZE_MAX);
    read_stats();
    CHECK(stat_of("resident", "total") == stat_of("resident", "metadata"));
}

CASES({"an-idle-program", an_idle_program, ALL_POOLS "OBMALLOC_DECAY_MS=200"},
      {"a-small-program", a_small_program, ALL_POOLS "OBMALLOC_DECAY_MS=20"},
      {"signals", signals, ALL_POOLS "OBMALLOC_DECAY_MS=1000"},
      {"used-again", used_again, ALL_POOLS "OBMALLOC_DECAY_MS=1000"},
      {"a-programs-arenas", a_programs_arenas, ALL_POOLS "OBMALLOC_DECAY_MS=50"},
      {"a-programs-arenas-at-once", a_programs_arenas, ALL_POOLS "OBMALLOC_DECAY_MS=0"},
      {"beside-threads", beside_threads, ALL_POOLS "OBMALLOC_DECAY_MS=1"},
      {"beside-threads-at-once", beside_threads, ALL_POOLS "OBMALLOC_DECAY_MS=0"},
      {"threads-that-end", threads_that_end, ALL_POOLS "OBMALLOC_DECAY_MS=20"},
      {"by-ticks", by_ticks, ALL_POOLS "OBMALLOC_DECAY_MS=50 OBMALLOC_BACKGROUND_THREAD=0"},
      {"no-thread-to-be-had", no_thread_to_be_had, ALL_POOLS "OBMALLOC_DECAY_MS=100"},
      {"never", never, ALL_POOLS "OBMALLOC_DECAY_MS=-1"},
      {"at-once", at_once, ALL_POOLS "OBMALLOC_DECAY_MS=0"});
