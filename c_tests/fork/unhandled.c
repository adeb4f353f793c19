/* ways: so a pre
 *
 * Children that are made without fork handlers: by _Fork, by clone itself, by vfork and
 * posix_spawn, while the helper thread sleeps. The first two have the helper's state, but not its
 * thread: they must be able to allocate, to have a helper of their own, and to fork; nothing may
 * wait for a thread that does not exist. The interval is so long that the helper only sleeps. */
#include "resident.h"
#include <spawn.h>
#include <sys/syscall.h>

static struct crowd crowd;

extern pid_t _Fork(void) __attribute__((weak)); /* glibc 2.34 and later */

static pid_t by_clone(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

static void come_and_go(void)
{
    join_crowd(&crowd, 12 * MIB, 100, 1000);
    leave_crowd(&crowd, 10);
}

/* A helper, which sleeps. */
static void get_a_helper(void)
{
    int helper; /* it may have left when one looks again */
    for (const double end = seconds() + PATIENCE;
         (helper = helper_now()) == 0 && seconds() < end;) {
        end_crowd(&crowd);
        come_and_go();
    }
    CHECK(helper != 0);
}

/* ---- what a child does ---- */

static void last_of_them(void *unused)
{
    CHECK(threads_now() == 1 && crowd_holds(&crowd));
    come_and_go();
}

static void forks_at_once(void)
{
    CHECK(in_child(last_of_them, NULL) == 0);
    CHECK(threads_now() == 1);
}

static void allocates_and_forks(void)
{
    come_and_go();
    forks_at_once();
    come_and_go();
    forks_at_once();
}

static void has_its_own_helper(void)
{
    get_a_helper();
    forks_at_once(); /* which ends it before */
}

static void does_it_the_same_way(void);

static void (*const lives[])(void) = {
    forks_at_once, allocates_and_forks, has_its_own_helper, does_it_the_same_way};

/* ---- children with a copy of the memory ---- */

static pid_t (*odd_fork)(void);

static void each_life(size_t most)
{
    for (size_t i = 0; i < most; i++) {
        get_a_helper();
        const int before = failures;
        const pid_t pid = odd_fork();
        if (pid == 0) {
            CHECK(threads_now() == 1 && crowd_holds(&crowd));
            lives[i]();
            CHECK(crowd_holds(&crowd));
            _exit(failures > before);
        }
        CHECK(pid > 0 && status_of(pid) == 0);
        CHECK(helper_now() != 0 && crowd_holds(&crowd));
    }
}

static void does_it_the_same_way(void)
{
    each_life(sizeof lives / sizeof *lives - 1);
}

static void all_lives(pid_t (*way)(void))
{
    odd_fork = way;
    each_life(sizeof lives / sizeof *lives);
    in_child(last_of_them, NULL);
}

static void with_fork_without_handlers(void)
{
    if (!_Fork)
        skip("this C library has no _Fork");
    all_lives(_Fork);
}

static void with_clone(void)
{
    all_lives(by_clone);
}

/* ---- children in the same memory ---- */

/* The child's blocks are its parent's, too: it frees what it takes. */
static __attribute__((noinline)) pid_t by_vfork(void)
{
    const pid_t pid = vfork();
    if (pid == 0) {
        for (size_t n = 1; n < 20000; n += n / 2 + 9)
            obj.free(obj.malloc(n));
        _exit(0);
    }
    return pid;
}

static void with_vfork(void)
{
    for (int i = 0; i < 20; i++) {
        get_a_helper();
        const pid_t pid = by_vfork();
        CHECK(pid > 0 && status_of(pid) == 0);
        CHECK(crowd_holds(&crowd));
        if (i % 5 == 4)
            CHECK(in_child(last_of_them, NULL) == 0 && threads_now() == 1);
    }
}

static void with_spawn(void)
{
    char *arguments[] = {"true", NULL}, *environment[] = {NULL};
    for (int i = 0; i < 20; i++) {
        pid_t pid = -1;
        get_a_helper();
        CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environment) == 0);
        CHECK(pid > 0 && status_of(pid) == 0);
        CHECK(helper_now() != 0 && crowd_holds(&crowd));
    }
    CHECK(in_child(last_of_them, NULL) == 0);
}

CASES({"unhandled-fork", with_fork_without_handlers, ALL_POOLS "OBMALLOC_DECAY_MS=100000"},
      {"unhandled-clone", with_clone, ALL_POOLS "OBMALLOC_DECAY_MS=100000"},
      {"unhandled-vfork", with_vfork, ALL_POOLS "OBMALLOC_DECAY_MS=100"},
      {"unhandled-posix-spawn", with_spawn, ALL_POOLS "OBMALLOC_DECAY_MS=100000"});
