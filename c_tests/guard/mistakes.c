/* ways: so a pre
 *
 * OBMALLOC_GUARD_SAMPLE_RATE in a process without CPython: mistakes are found where they happen, and faults
 * are passed on to the handler that was there before, as without the library. */
#include "harness.h"

#include <setjmp.h>

static volatile unsigned char sink;

struct mistake {
    const char *name;
    void (*make)(void);
    int signal;          /* ends the child */
    const char *begins;  /* what is said first, after `obmalloc: ` */
    const char *says[3]; /* and what else */
};

static unsigned char *freed(size_t n)
{
    unsigned char *p = obj.malloc(n);
    obj.free(p);
    return p;
}

static void read_freed(void) { sink = ((volatile unsigned char *)freed(40))[39]; }
static void write_freed(void) { ((volatile unsigned char *)freed(600))[0] = 1; }
static void mem_freed(void)
{
    volatile unsigned char *p = mem.malloc(24);
    obj.free((void *)p); /* the domains MEM and OBJ are one */
    sink = p[0];
}

static void overflow_by_one(void)
{
    volatile unsigned char *p = obj.calloc(1, 33);
    p[33] = 1;
    obj.free((void *)p);
}

/* Blocks on the right of their slots fault, others do not. */
static void overflow_far(void)
{
    for (int i = 0; i < 100; i++)
        sink = ((volatile unsigned char *)obj.malloc(32))[48];
}

static void underflow(void)
{
    for (int i = 0; i < 100; i++)
        sink = ((volatile unsigned char *)obj.malloc(32))[-1];
}

static void after_realloc(void)
{
    volatile unsigned char *p = obj.malloc(100);
    memset((void *)p, 'x', 100);
    volatile unsigned char *q = obj.realloc((void *)p, 200);
    CHECK(q != p && q[0] == 'x' && q[99] == 'x');
    sink = p[50];
}

static void free_twice(void) { obj.free(freed(16)); }
static void free_within(void) { obj.free((char *)obj.malloc(64) + 16); }
static void realloc_freed(void) { obj.realloc(freed(64), 128); }

static void child(void *argument)
{
    const struct mistake *m = argument;
    m->make();
    fprintf(stderr, "survived\n");
}

/* ---- who handled faults before ---- */

static sigjmp_buf back;

static void plain(int signal)
{
    static const char text[] = "plain handler\n";
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    if (write(2, text, sizeof text - 1) < 0 || !sigismember(&blocked, SIGSEGV) ||
        !sigismember(&blocked, SIGUSR1))
        _exit(1);
    _exit(9);
}

static void with_info(int signal, siginfo_t *info, void *context)
{
    bool right = signal == SIGSEGV && info->si_code == SEGV_ACCERR && info->si_addr && context;
    _exit(right ? 10 : 1);
}

static void jump(int signal)
{
    siglongjmp(back, 1);
}

static void set_handler(void (*handler)(int), void (*info)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    if (info)
        action.sa_sigaction = info;
    else
        action.sa_handler = handler;
    action.sa_flags = flags;
    sigaddset(&action.sa_mask, SIGUSR1);
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
}

static void child_plain(void *unused) { set_handler(plain, NULL, 0); read_freed(); }
static void child_info(void *unused) { set_handler(NULL, with_info, SA_SIGINFO); read_freed(); }
static void child_ignored(void *unused) { set_handler(SIG_IGN, NULL, 0); read_freed(); }

/* It goes on, makes another mistake, which is reported as well, and a fault of another
 * kind, which is not. */
static void child_jumps(void *unused)
{
    set_handler(jump, NULL, 0);
    static volatile int round;
    sigsetjmp(back, 1);
    switch (round++) {
    case 0: read_freed(); break;
    case 1: write_freed(); break;
    case 2: sink = *(volatile unsigned char *)8; break;
    default:
        for (int i = 0; i < 1000; i++)
            obj.free(obj.malloc(40));
        _exit(11);
    }
    _exit(1);
}

static void child_other_fault(void *unused)
{
    obj.free(obj.malloc(40));
    sink = *(volatile unsigned char *)8;
}

static void child_sent(void *unused)
{
    obj.free(obj.malloc(40));
    raise(SIGSEGV);
    _exit(1);
}

static void child_sent_ignored(void *unused)
{
    set_handler(SIG_IGN, NULL, 0);
    obj.free(obj.malloc(40));
    raise(SIGSEGV);
    _exit(12);
}

/* OBMALLOC_ON_ERROR=report: a wrong free is left undone. */
static void child_goes_on(void *unused)
{
    setenv("OBMALLOC_ON_ERROR", "report", 1);
    free_twice();
    free_within();
    realloc_freed();
    for (int i = 0; i < 1000; i++)
        obj.free(obj.malloc(40));
    _exit(13);
}

static char said[60000];

static void mistakes_are_found(void)
{
    static const struct mistake mistakes[] = {
        {"read of a freed block", read_freed, SIGSEGV, "use after free: read of ",
         {" 39 bytes into the freed block of 40 bytes", "allocated by thread", "freed by thread"}},
        {"write of a freed block", write_freed, SIGSEGV, "use after free: write of ",
         {" 0 bytes into the freed block of 600", "allocated by thread", "freed by thread"}},
        {"of the domain MEM", mem_freed, SIGSEGV, "use after free: read of ",
         {" 0 bytes into the freed block of 24", "allocated by thread", "freed by thread"}},
        {"overflow by one", overflow_by_one, SIGABRT, "overflow: written 0 bytes after ",
         {"the block of 33 bytes", "seen when it is freed", "allocated by thread"}},
        {"overflow by sixteen", overflow_far, SIGSEGV, "overflow: read of ",
         {" 16 bytes after the block of 32", "allocated by thread", "read by thread"}},
        {"underflow", underflow, SIGSEGV, "underflow: read of ",
         {" 1 bytes before the block of 32", "allocated by thread", "read by thread"}},
        {"use of what realloc left", after_realloc, SIGSEGV, "use after free: read of ",
         {" 50 bytes into the freed block of 100", "allocated by thread", "freed by thread"}},
        {"double free", free_twice, SIGABRT, "double free: free of ",
         {" 0 bytes into the freed block of 16", "allocated by thread", "freed by thread"}},
        {"free within a block", free_within, SIGABRT, "no block: free of ",
         {" 16 bytes into the block of 64", "allocated by thread", "free by thread"}},
        {"realloc of a freed block", realloc_freed, SIGABRT, "use after free: realloc of ",
         {" 0 bytes into the freed block of 64", "allocated by thread", "freed by thread"}},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        STEP(mistakes[i].name) {
            const struct mistake *m = &mistakes[i];
            int status = output_in_child(child, (void *)m, said, sizeof said);
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == m->signal);
            CHECK(strncmp(said, "obmalloc: ", 10) == 0);
            CHECK(strncmp(said + 10, m->begins, strlen(m->begins)) == 0);
            for (int j = 0; j < 3; j++)
                CHECK(strstr(said, m->says[j]));
            CHECK(occurrences(said, "\n") == occurrences(said, "obmalloc: "));
            if (failures)
                fprintf(stderr, "status %#x, it said: %s\n", (unsigned)status, said);
        }
}

static void handlers(void)
{
    static const struct {
        const char *name;
        void (*body)(void *);
        int exits, signal, reports;
    } handlers[] = {
        {"a handler is called as ever", child_plain, 9, 0, 1},
        {"with the fault's address", child_info, 10, 0, 1},
        {"a fault cannot be ignored", child_ignored, 0, SIGSEGV, 1},
        {"a handler may leave by a jump", child_jumps, 11, 0, 2},
        {"other faults are nobody's", child_other_fault, 0, SIGSEGV, 0},
        {"a signal that is sent", child_sent, 0, SIGSEGV, 0},
        {"a signal that is sent and ignored", child_sent_ignored, 12, 0, 0},
        {"wrong frees, and the program is to go on", child_goes_on, 13, 0, 1},
    };
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        STEP(handlers[i].name) {
            int status = output_in_child(handlers[i].body, NULL, said, sizeof said);
            if (handlers[i].signal)
                CHECK(WIFSIGNALED(status) && WTERMSIG(status) == handlers[i].signal);
            else
                CHECK(WIFEXITED(status) && WEXITSTATUS(status) == handlers[i].exits);
            CHECK(occurrences(said, "use after free: ") == handlers[i].reports);
            if (failures)
                fprintf(stderr, "status %#x, it said: %s\n", (unsigned)status, said);
        }
}

CASES({"mistakes", mistakes_are_found, "OBMALLOC_GUARD_SAMPLE_RATE=1", true},
      {"mistakes-and-handlers", handlers, "OBMALLOC_GUARD_SAMPLE_RATE=1", true});
