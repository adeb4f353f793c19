/* ways: so a pre
 *
 * OBMALLOC_GUARD_SAMPLE_RATE, several threads at once: one whole report is made before the process ends,
 * however long its end takes; where the program goes on, each mistake is reported. */
#include "harness.h"

#include <dlfcn.h>
#include <sys/mman.h>

#define THREADS 4

static volatile unsigned char sink;
static unsigned char *blocks[THREADS];
static pthread_barrier_t all_ready;

/* ---- what the threads do ---- */

static void read_own(long i) { sink = ((volatile unsigned char *)blocks[i])[8]; }
static void read_same(long i) { read_own(0); }
static void free_own(long i) { obj.free(blocks[i]); }

/* Only the first one's fault is one to be reported. */
static void read_anywhere(long i)
{
    if (i == 0)
        read_own(0);
    else
        sink = *(volatile unsigned char *)(8 * i);
}

/* ---- what follows a report ---- */

/* Slow, so that the other threads see the report made. */
static void ends_slowly(int signal, siginfo_t *info, void *context)
{
    usleep(100 * 1000);
    _exit(21);
}

/* A report that is being written would be cut short. */
static void ends_at_once(int signal, siginfo_t *info, void *context)
{
    _exit(22);
}

/* The kernel ends the process if no handler does. The library requests that by this function,
 * which is slow here, so that the other threads have time. */
static bool is_late;
int sigaction(int signal, const struct sigaction *new, struct sigaction *old)
{
    if (is_late && new && new->sa_handler == SIG_DFL) {
        (void)!write(2, "late\n", 5);
        usleep(100 * 1000);
    }
    int (*next)(int, const struct sigaction *, struct sigaction *) =
        (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(RTLD_NEXT, "sigaction");
    return next(signal, new, old);
}

/* The fault does not happen again. */
static void repairs(int signal, siginfo_t *info, void *context)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *start = (char *)info->si_addr - (uintptr_t)info->si_addr % page;
    if (mprotect(start, page, PROT_READ | PROT_WRITE))
        _exit(1);
}

/* ---- the process ---- */

struct mistakes {
    const char *name;
    void (*make)(long);
    void (*handler)(int, siginfo_t *, void *); /* there before the library's; or none */
    const char *what;
    int reports, exits, signal;
    int rounds; /* so many processes, where it is by chance what meets; 1: the end is late */
};

static void set_handler(int signal, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO;
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static const struct mistakes *now;

static void *run(void *number)
{
    pthread_barrier_wait(&all_ready);
    now->make((long)number);
    return NULL;
}

static void child(void *unused)
{
    if (now->handler) {
        set_handler(SIGSEGV, now->handler);
        set_handler(SIGABRT, now->handler);
    }
    for (int i = 0; i < THREADS; i++)
        blocks[i] = obj.malloc(40);
    for (int i = 0; i < THREADS; i++)
        obj.free(blocks[i]);
    pthread_t threads[THREADS];
    CHECK(pthread_barrier_init(&all_ready, NULL, THREADS) == 0);
    start_threads(THREADS, threads, run);
    join_threads(THREADS, threads);
    _exit(20);
}

static void threads_at_once(void)
{
    enum { AT_MOST_ONE = -1 };
    static const struct mistakes mistakes[] = {
        {"one report while a handler ends the process", read_own, ends_slowly,
         "use after free: read of ", 1, 21, 0, 1},
        {"one report while abort does", free_own, ends_slowly, "double free: free of ", 1, 21,
         0, 1},
        {"one report while the kernel does", read_own, NULL, "use after free: read of ", 1, 0,
         SIGSEGV, 1},
        {"of one address, whole", read_same, NULL, "use after free: read of ", 1, 0, SIGSEGV, 20},
        {"of one address, with a handler", read_same, ends_at_once, "use after free: read of ", 1,
         22, 0, 20},
        {"other faults do not cut it short", read_anywhere, NULL, "use after free: read of ",
         AT_MOST_ONE, 0, SIGSEGV, 20},
        {"a report for each, if the program goes on", read_own, repairs,
         "use after free: read of ", THREADS, 20, 0, 1},
    };
    static char said[60000];
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        STEP(mistakes[i].name) {
            now = &mistakes[i];
            is_late = now->rounds == 1;
            for (int round = 0; round < now->rounds; round++) {
                int status = output_in_child(child, NULL, said, sizeof said);
                if (now->signal)
                    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == now->signal);
                else
                    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == now->exits);
                int reports = occurrences(said, now->what);
                CHECK(now->reports == AT_MOST_ONE ? reports <= 1 : reports == now->reports);
                CHECK(occurrences(said, "late\n") == (is_late && now->signal));
                CHECK(occurrences(said, "  freed by thread ") == reports); /* what is said last */
                if (failures)
                    fprintf(stderr, "round %d, status %#x, it said: %s\n", round,
                            (unsigned)status, said);
            }
        }
}

CASES({"threads", threads_at_once, .settings = "OBMALLOC_GUARD_SAMPLE_RATE=1", .reads_stderr = true});
