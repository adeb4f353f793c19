/* ways: so a pre
 *
 * Statistics, snapshots, trim and the exit on a thread with the smallest stack, 16 KiB, of which
 * the C library uses a part; with every setting that adds to them. Each runs in a process of its
 * own: a stack that is too small ends it. */
#include "stats.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>

enum { STACK = 16384, STATUS = 7, PAINT = 0xA5 };

int _PyObject_DebugMallocStats(FILE *out) __attribute__((weak));

static char folder[] = "/tmp/obmalloc-stack-XXXXXX";
static char path[PATH_MAX];
static FILE *out;

/* Some heap: several arenas, classes and a magazine. */
static void work(void)
{
    enum { MANY = 12000 };
    static char *p[MANY];
    for (int i = 0; i < MANY; i++)
        p[i] = obj.malloc((size_t)(i % 1000) + 1);
    for (int i = 0; i < MANY; i++)
        if (i % 3)
            obj.free(p[i]);
}

static void json(void) { CHECK(obmalloc_stats_json(stats_text, sizeof stats_text) > 200); }
static void snapshot(void) { CHECK(obmalloc_snapshot(path) == 0); }
static void no_snapshot(void) { CHECK(obmalloc_snapshot("/dev/full") == ENOSPC); }
static void trim(void) { obmalloc_trim(0); }
static void before_fork(void) { obmalloc_before_fork(); }
static void leave(void) { exit(STATUS); }

static void table(void)
{
    if (_PyObject_DebugMallocStats)
        _PyObject_DebugMallocStats(out);
}

static void forks(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    CHECK(status_of(pid) == 0);
}

static const struct {
    const char *name;
    void (*call)(void);
} calls[] = {{"json", json},         {"snapshot", snapshot},       {"no snapshot", no_snapshot},
             {"trim", trim},         {"before fork", before_fork}, {"table", table},
             {"fork", forks},        {"exit", leave}};
enum { CALLS = sizeof calls / sizeof calls[0] };

static void *run(void *which)
{
    (*(void (**)(void))which)();
    return NULL;
}

/* Makes a call on a small stack; bytes that were used of it. Where the C library wants a larger one
 * (128 KiB on aarch64), the rest is inaccessible. */
static size_t used_by(int i)
{
    const size_t page = (size_t)getpagesize();
    const long least = sysconf(_SC_THREAD_STACK_MIN);
    const size_t size = (least > STACK ? (size_t)least : STACK) + page;
    const size_t closed = (size - STACK) / page * page;
    unsigned char *low = mmap(NULL, size, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(low != MAP_FAILED && mprotect(low, closed, PROT_NONE) == 0);
    memset(low + closed, PAINT, size - closed);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstack(&attributes, low + page, size - page) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, &attributes, run, (void *)&calls[i].call) == 0);
    pthread_join(thread, NULL);
    size_t used = size - closed;
    while (used > 0 && low[size - used] == PAINT)
        used--;
    munmap(low, size);
    return used;
}

static void play(int i)
{
    snprintf(path, sizeof path, "%s/snapshot-%d", getenv("TEST_FOLDER"), (int)getpid());
    out = fopen("/dev/null", "w");
    work();
    static char buffer[BUFSIZ];
    setvbuf(out, buffer, _IOFBF, sizeof buffer);
    size_t used = used_by(i);
    CHECK(unlink(path) == 0 || calls[i].call != snapshot);
    if (getenv("TEST_VERBOSE"))
        fprintf(stderr, "%-12s %5zu bytes of stack\n", calls[i].name, used);
    exit(exit_status());
}

static void all_calls(const char *settings)
{
    for (int i = 0; i < CALLS; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            char number[8], copy[200];
            snprintf(number, sizeof number, "%d", i);
            snprintf(copy, sizeof copy, "%s", settings);
            setenv("TEST_CALL", number, 1);
            setenv("TEST_FOLDER", folder, 1);
            for (char *at = strtok(copy, " "); at; at = strtok(NULL, " "))
                putenv(strdup(at));
            if (!getenv("TEST_VERBOSE"))
                CHECK(dup2(open("/dev/null", O_WRONLY), 2) == 2);
            run_this_program((char *[]){"stack", "statistics", NULL});
            _exit(98);
        }
        int status = status_of(pid);
        int expected = calls[i].call == leave ? STATUS : 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != expected) {
            fprintf(stderr, "%s, %s: status %#x\n", settings, calls[i].name, (unsigned)status);
            CHECK(!"works on a small stack");
        }
    }
}

static void statistics_on_a_small_stack(void)
{
    if (getenv("TEST_CALL"))
        play(atoi(getenv("TEST_CALL")));
    CHECK(mkdtemp(folder) != NULL);
    char file[100];
    snprintf(file, sizeof file, "OBMALLOC_STATS=%s/stats", folder);
    STEP("no settings") all_calls("");
    STEP("statistics on stderr") all_calls("OBMALLOC_STATS=1 OBMALLOC_VERBOSE=1");
    STEP("statistics to a file") all_calls(file);
    STEP("a live page") all_calls("OBMALLOC_STATS_PAGE=1");
    STEP("a live page without a thread")
        all_calls("OBMALLOC_STATS_PAGE=1 OBMALLOC_BACKGROUND_THREAD=0");
    STEP("guarded blocks") all_calls("OBMALLOC_GUARD_SAMPLE_RATE=10");
    STEP("a limit") all_calls("OBMALLOC_SOFT_LIMIT=100M OBMALLOC_HARD_LIMIT=4G");
    STEP("debug hooks, all returned") all_calls("OBMALLOC_DEBUG=1 OBMALLOC_DECAY_MS=0");
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK(shell(command) == 0);
}

CASES({"statistics", statistics_on_a_small_stack});
