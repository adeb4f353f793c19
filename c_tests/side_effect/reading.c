/* ways: so a pre
 *
 * In a process with threads a short-lived thread with descriptors of its own reads the kernel's
 * files. It is invisible to waits for children, handlers of signals, the number of threads and the
 * program's descriptors; also in a child of vfork. Where the kernel refuses the thread, the files
 * are read all the same. */
#include "stats.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { READS = 300, NOBODY = 65534 };

static atomic_int children, alarms;

static void on_child(int signal)
{
    atomic_fetch_add(&children, 1);
}

static void on_alarm(int signal)
{
    char frame[4096]; /* more than the thread's stack */
    memset(frame, signal, sizeof frame);
    atomic_fetch_add(&alarms, frame[17] == (char)signal);
}

static void *park(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void start_a_thread(void)
{
    pthread_t id;
    CHECK(pthread_create(&id, NULL, park, NULL) == 0);
}

/* Bytes in memory, which the library reads from a file. */
static bool is_read(void)
{
    read_stats();
    return number_at(value_of(stats_text, stats_text + strlen(stats_text), "rss")) > 100000;
}

static void reads_well(void)
{
    CHECK(is_read());
    start_a_thread();
    for (int i = 0; i < READS; i++)
        CHECK(is_read());
}

/* Of the kernel's count, which takes a descriptor to read. */
static int threads_now(void)
{
    char text[2000] = {0}, *at;
    int fd = open("/proc/self/stat", O_RDONLY);
    CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    close(fd);
    at = strrchr(text, ')');
    for (int field = 2; at && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at ? atoi(at) : -1;
}

static void nothing_shows_it(void)
{
    struct sigaction action = {.sa_handler = on_child};
    sigaction(SIGCHLD, &action, NULL);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    start_a_thread();
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    unsigned more = 0;
    for (int i = 0; i < READS; i++) {
        errno = 77;
        CHECK(is_read());
        CHECK(errno == 77);
        more += threads_now() != 2;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK(more <= READS / 100); /* on a busy machine it may be seen going */
    CHECK(alarms > 0 && children == 0);
    CHECK(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD);
    struct rusage usage;
    CHECK(getrusage(RUSAGE_CHILDREN, &usage) == 0 && usage.ru_maxrss == 0);
}

static void in_a_child_of_vfork(void)
{
    start_a_thread();
    static bool was_read;
    pid_t pid = vfork();
    if (pid == 0) {
        was_read = is_read();
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0 && was_read && is_read());
}

static void when_no_thread_is_given(void)
{
    start_a_thread();
    if (geteuid() == 0)
        CHECK(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    struct rlimit one = {1, 1};
    CHECK(setrlimit(RLIMIT_NPROC, &one) == 0);
    for (int i = 0; i < READS; i++)
        CHECK(is_read());
}

static void in_a_new_namespace(void)
{
    start_a_thread();
    if (unshare(CLONE_NEWPID) != 0)
        skip("no PID namespace can be made here");
    for (int i = 0; i < READS; i++)
        CHECK(is_read());
}

/* From now on a system call fails. */
static void refuse(unsigned number, unsigned error)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof steps / sizeof *steps, steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        skip("no filter of system calls can be set here");
}

static atomic_bool done;

static void *read_on(void *unused)
{
    while (!done)
        CHECK(is_read());
    return unused;
}

/* As before Linux 5.9: the thread gets a copy of the descriptors. */
static void without_close_range(void)
{
    pthread_t id;
    refuse(SYS_close_range, ENOSYS);
    start_a_thread();
    CHECK(is_read());
    close(0);
    CHECK(pthread_create(&id, NULL, read_on, NULL) == 0);
    unsigned taken = 0;
    for (int i = 0; i < 200000; i++)
        taken += fcntl(0, F_GETFD) != -1;
    done = true;
    pthread_join(id, NULL);
    CHECK(taken == 0);
}

static void without_clone(void)
{
    start_a_thread();
    refuse(SYS_clone, EPERM);
    for (int i = 0; i < READS; i++)
        CHECK(is_read());
}

CASES({"reading", reads_well},
      {"reading-shows-nothing", nothing_shows_it},
      {"reading-in-a-child-of-vfork", in_a_child_of_vfork},
      {"reading-when-no-thread-is-given", when_no_thread_is_given},
      {"reading-in-a-new-namespace", in_a_new_namespace},
      {"reading-with-a-copy-of-the-descriptors", without_close_range},
      {"reading-when-clone-is-refused", without_clone});
