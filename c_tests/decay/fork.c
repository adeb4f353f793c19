/* ways: so a pre
 *
 * The helper thread that returns pages, and fork: it has ended when the program forks, in the
 * parent and in the child, with other libraries' handlers too; both processes may have one again
 * later; and no fork hangs. fork/storm.c has many forks. */
#include "resident.h"
#include <sys/syscall.h>

static struct crowd crowd;

static void come_and_go(void)
{
    join_crowd(&crowd, 24 * MIB, 100, 1000);
    leave_crowd(&crowd, 10);
}

/* Allocates and frees until there is a helper; after a fork there is none for an interval. */
static int get_a_helper(void)
{
    int helper;
    for (const double end = seconds() + PATIENCE;
         (helper = helper_now()) == 0 && seconds() < end;) {
        come_and_go();
        end_crowd(&crowd);
    }
    CHECK(helper != 0);
    return helper;
}

/* ---- how many threads there are ---- */

static int in_the_parent, in_the_child;

static void parent_handler(void)
{
    in_the_parent = threads_now();
}

static void child_handler(void)
{
    in_the_child = threads_now();
}

static void its_own_helper(void)
{
    come_and_go();
    get_a_helper();
    come_and_go();
    read_stats();
    const long long before = stat_of("resident", "returned_total");
    CHECK(COMES((read_stats(), stat_of("resident", "returned_total") > before + (4 << 20)),
                PATIENCE));
    CHECK(crowd_holds(&crowd));
    CHECK(COMES(threads_now() == 1, PATIENCE));
}

static void one_thread(void)
{
    static const int waits[] = {0, 1, 50, 130, 230, 400}; /* milliseconds */
    pthread_atfork(NULL, parent_handler, child_handler);
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        get_a_helper();
        come_and_go();
        usleep((useconds_t)waits[i] * 1000); /* maybe it has just left, or is leaving */
        const pid_t pid = fork();
        const int threads = threads_now();
        if (pid == 0) {
            CHECK(threads == 1 && in_the_child == 1);
            CHECK(crowd_holds(&crowd));
            if (i % 3 == 0)
                its_own_helper();
            _exit(exit_status());
        }
        CHECK(pid > 0 && threads == 1 && in_the_parent == 1);
        CHECK(status_of(pid) == 0);
        CHECK(crowd_holds(&crowd));
        end_crowd(&crowd);
    }
}

static void fork_once(void)
{
    const pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    CHECK(status_of(pid) == 0);
}

static void fork_and_go_on(void)
{
    fork_once();
    CHECK(threads_now() == 1);
    void *p[1000];
    for (int i = 0; i < 1000; i++)
        p[i] = obj.malloc(400);
    for (int i = 0; i < 1000; i++)
        obj.free(p[i]);
}

/* A program that forks again and again hardly has a helper; pages are returned all the same. */
static void a_fork_now_and_then(void)
{
    join_crowd(&crowd, 30 * MIB, 100, 1000);
    const size_t peak = resident();
    leave_crowd(&crowd, 10);
    CHECK(COMES_BY(fork_and_go_on(), 50000, resident() + 15 * MIB < peak, PATIENCE, 300));
    CHECK(crowd_holds(&crowd));
}

/* Free pages are returned although no function is called any more. */
static void must_go_back(size_t peak)
{
    CHECK(COMES(resident() + 24 * MIB < peak, PATIENCE));
    CHECK(crowd_holds(&crowd));
}

/* The second fork comes long before an interval has passed, and ends the helper. */
static void freed_between_forks(void)
{
    join_crowd(&crowd, 24 * MIB, 100, 1000);
    leave_crowd(&crowd, 10);
    fork_once();
    join_crowd(&crowd, 48 * MIB, 100, 1000);
    const size_t peak = resident();
    usleep(50000);
    leave_crowd(&crowd, 10);
    fork_once();
    must_go_back(peak);
}

/* Parent and child free everything right after the fork. */
static void freed_after_a_fork(void)
{
    join_crowd(&crowd, 48 * MIB, 100, 1000);
    const size_t peak = resident();
    const pid_t pid = fork();
    leave_crowd(&crowd, 10);
    must_go_back(peak);
    if (pid == 0)
        _exit(exit_status());
    CHECK(status_of(pid) == 0);
}

/* ---- handlers that were there before ours, so that they come after it ---- */

static bool armed;

static void drop_much(void)
{
    if (armed)
        leave_crowd(&crowd, 10);
}

static void before_everything(void)
{
    pthread_atfork(drop_much, NULL, NULL);
}

RUNS_FIRST(before_everything);

static void dropped_in_a_handler(void)
{
    for (int i = 0; i < 5; i++) {
        join_crowd(&crowd, 24 * MIB, 100, 1000);
        usleep(30000); /* an interval since the last fork */
        armed = true;
        const pid_t pid = fork();
        armed = false;
        const int threads = threads_now();
        if (pid == 0) {
            CHECK(threads == 1);
            CHECK(in_child((void (*)(void *))its_own_helper, NULL) == 0);
            _exit(exit_status());
        }
        CHECK(pid > 0 && threads == 1);
        CHECK(status_of(pid) == 0);
        end_crowd(&crowd);
    }
}

/* ---- the kernel's numbers of threads come again ---- */

static int wanted;
static atomic_bool tried, found, stop;

static void *another_thread(void *unused)
{
    found = (int)syscall(SYS_gettid) == wanted;
    tried = true;
    for (const double end = seconds() + 10; found && !stop && seconds() < end;)
        usleep(1000);
    return unused;
}

/* Makes it the number of the kernel's next thread; other programs may be quicker. */
static bool next_number(int number)
{
    char text[32];
    const int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
    const int n = snprintf(text, sizeof text, "%d", number - 1);
    const bool written = fd >= 0 && write(fd, text, (size_t)n) == n;
    if (fd >= 0)
        close(fd);
    return written;
}

/* A helper has left, and another thread has its number now. */
static void numbers_come_again(void)
{
    pthread_t thread;
    wanted = get_a_helper();
    CHECK(COMES(threads_now() == 1, PATIENCE));
    for (int i = 0; i < 200 && !found; i++) {
        if (!next_number(wanted))
            skip("the kernel's next number may not be set here");
        tried = false;
        CHECK(pthread_create(&thread, NULL, another_thread, NULL) == 0);
        if (!COMES(tried, PATIENCE) || !found)
            pthread_join(thread, NULL);
    }
    CHECK(found);
    const double begin = seconds();
    const pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    CHECK(status_of(pid) == 0 && seconds() < begin + 8);
    stop = true;
    if (found)
        pthread_join(thread, NULL);
}

CASES({"fork-has-one-thread", one_thread, ALL_POOLS "OBMALLOC_DECAY_MS=100"},
      {"fork-now-and-then", a_fork_now_and_then, ALL_POOLS "OBMALLOC_DECAY_MS=500"},
      {"fork-freed-between-two", freed_between_forks, ALL_POOLS "OBMALLOC_DECAY_MS=30000"},
      {"fork-freed-after", freed_after_a_fork, ALL_POOLS "OBMALLOC_DECAY_MS=400"},
      {"fork-dropped-in-a-handler", dropped_in_a_handler, ALL_POOLS "OBMALLOC_DECAY_MS=10"},
      {"fork-numbers-come-again", numbers_come_again, ALL_POOLS "OBMALLOC_DECAY_MS=20"});
