/* ways: so a
 *
 * A fork may find another thread at any instruction (MAGAZINE-4 in src/tcache/magazine.rs). Here
 * it does: one thread is stepped through malloc and free instruction by instruction, and after
 * each another thread forks. In the child a new thread takes over the magazines of the stopped
 * one, allocates until all pools are full, and frees all; no block may be allocated twice or be a
 * live one, and no block that is freed may be free already.
 *
 *     tracer      a process: steps W, then wakes F
 *     W           allocates and frees; its blocks are in `live`
 *     F           forks, waits for the child, reports its status
 *
 * Where W holds a lock, F's fork waits for it; W is stepped on until it is open.
 * STEPS=1 forks after each instruction (`make stepper`), else it is each 61st. */
#include "harness.h"

#include <elf.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>

enum { LIVE = 512, DRAIN = 420, OWN = 24, MARK = 32 };
enum phase { WAITING, STEPPED, OVER, ALL_OVER };

/* Shared with the tracer. */
static struct {
    atomic_int tracee, worker, forker, seized, phase;
    atomic_long steps, forks, held;
} *shared;

static int ask[2], answer[2]; /* pipes to F and from it */

/* ---- what W has ---- */

static size_t size; /* of all blocks of a scenario */
static void *volatile live[LIVE];

static void get(int i)
{
    void *block = PyObject_Malloc(size);
    memset(block, i & 0x7f, MARK);
    live[i] = block;
}

static void put(int i)
{
    void *block = live[i];
    live[i] = NULL; /* from here on it is nobody's, or in W's hands */
    PyObject_Free(block);
}

/* ---- the child ---- */

static void *blocks[DRAIN + OWN];

static void take(int from, int to)
{
    for (int i = from; i < to; i++)
        if ((blocks[i] = PyObject_Malloc(size)))
            memset(blocks[i], 0x80 | (i & 0x7f), MARK), memcpy(blocks[i], &i, sizeof i);
}

static void give(int from, int to)
{
    for (int i = from; i < to; i++)
        PyObject_Free(blocks[i]);
}

static pthread_barrier_t taken, checked;

static void *takes_over(void *argument)
{
    take(0, DRAIN);
    pthread_barrier_wait(&taken);
    pthread_barrier_wait(&checked);
    give(0, DRAIN);
    return argument;
}

static bool is_whole(const unsigned char *block, size_t from, unsigned char byte)
{
    for (size_t i = from; i < MARK; i++)
        if (block[i] != byte)
            return false;
    return true;
}

static int check_child(void)
{
    pthread_t thread;
    int bad = 0;
    alarm(20);
    pthread_barrier_init(&taken, NULL, 2);
    pthread_barrier_init(&checked, NULL, 2);
    if (pthread_create(&thread, NULL, takes_over, NULL) != 0)
        return 1;
    pthread_barrier_wait(&taken);
    take(DRAIN, DRAIN + OWN);
    for (int i = 0; i < DRAIN + OWN; i++) {
        int number = -1;
        if (blocks[i])
            memcpy(&number, blocks[i], sizeof number);
        bad += number != i || !is_whole(blocks[i], sizeof i, 0x80 | (i & 0x7f));
    }
    for (int i = 0; i < LIVE; i++)
        bad += live[i] && !is_whole(live[i], 0, i & 0x7f);
    pthread_barrier_wait(&checked);
    pthread_join(thread, NULL);
    give(DRAIN, DRAIN + OWN);
    for (int i = 0; i < LIVE; i++)
        PyObject_Free(live[i]);
    obmalloc_trim(0);
    if (bad)
        fprintf(stderr, "%d blocks are not what they were\n", bad);
    return bad ? 2 : 0;
}

static void *forker(void *argument)
{
    char word;
    take(0, OWN); /* so that it has magazines of its own */
    give(0, OWN);
    atomic_store(&shared->forker, (int)syscall(SYS_gettid));
    while (read(ask[0], &word, 1) == 1) {
        int status = -1;
        pid_t pid = fork();
        if (pid == 0)
            _exit(check_child());
        waitpid(pid, &status, 0);
        word = status == 0 ? 'y' : 'n';
        if (status != 0)
            fprintf(stderr, "a child: status 0x%x\n", (unsigned)status);
        if (write(answer[1], &word, 1) != 1)
            break;
    }
    return argument;
}

/* ---- W's scenarios: until STEP they run as usual, then step by step ---- */

static void step(void)
{
    atomic_store(&shared->worker, (int)syscall(SYS_gettid));
    while (!atomic_load(&shared->seized))
        usleep(100);
    atomic_store(&shared->phase, STEPPED);
    /* A breakpoint. The signal is not delivered; on x86-64 the instruction is executed by then, on
     * aarch64 it is not, and the tracer passes over it. */
#if defined(__aarch64__)
    __asm__ volatile("brk #0");
#else
    __asm__ volatile("int3");
#endif
}

static void over(void)
{
    atomic_store(&shared->phase, OVER);
}

/* The depot keeps runs once enough have come. */
static void warm_up(void)
{
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < LIVE; i++)
            get(i);
        for (int i = 0; i < LIVE; i++)
            put(i);
    }
}

/* Up and down over both ends of a magazine, the depot and the pools. */
static void up_and_down(void)
{
    warm_up();
    for (int i = 0; i < 20; i++)
        get(i);
    step();
    for (int i = 20; i < 45; i++)
        get(i);
    for (int i = 5; i < 45; i++)
        put(i);
    for (int i = 5; i < 25; i++)
        get(i);
    for (int i = 0; i < 5; i++)
        put(i);
    over();
    for (int i = 5; i < 25; i++)
        put(i);
}

/* No depot yet, and pools that begin and end. */
static void pools(void)
{
    for (int i = 0; i < 6; i++)
        get(i);
    step();
    for (int i = 6; i < 140; i++)
        get(i);
    for (int i = 139; i >= 100; i--)
        put(i);
    over();
    for (int i = 0; i < 100; i++)
        put(i);
}

static void first_miss(void)
{
    step();
    get(0);
    put(0);
    over();
}

static void trim(void)
{
    for (int i = 0; i < 30; i++)
        get(i);
    for (int i = 0; i < 30; i++)
        put(i);
    step();
    obmalloc_trim(0);
    over();
}

/* What the library does when a thread ends is stepped, too. */
static void end(void)
{
    for (int i = 0; i < 30; i++)
        get(i);
    for (int i = 0; i < 20; i++)
        put(i);
    step();
}

static const struct {
    const char *name;
    void (*run)(void);
    size_t size;
} scenarios[] = {
    {"up and down", up_and_down, 512}, {"up and down, few blocks", up_and_down, 2048},
    {"pools", pools, 512},             {"a first miss", first_miss, 512},
    {"trim", trim, 512},               {"a thread's end", end, 512},
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

static void *worker(void *scenario)
{
    scenarios[(uintptr_t)scenario].run();
    return NULL;
}

static void tracee(void)
{
    pthread_t fork_thread, thread;
    size = 512;
    pthread_create(&fork_thread, NULL, forker, NULL);
    while (!atomic_load(&shared->forker))
        usleep(100);
    for (uintptr_t n = 0; n < SCENARIOS; n++) {
        size = scenarios[n].size;
        pthread_create(&thread, NULL, worker, (void *)n);
        pthread_join(thread, NULL);
        for (int i = 0; i < LIVE; i++)
            if (live[i])
                put(i);
        while (atomic_load(&shared->worker)) /* the tracer is done with it */
            usleep(100);
    }
    atomic_store(&shared->phase, ALL_OVER);
    close(ask[1]);
    _exit(exit_status());
}

/* ---- the tracer ---- */

static bool forking; /* F is in a fork that waits for a lock */

/* Whether F sleeps on a lock. */
static bool is_blocked(void)
{
    char name[64], text[64] = "";
    snprintf(name, sizeof name, "/proc/%d/task/%d/syscall", shared->tracee, shared->forker);
    int fd = open(name, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    return n > 0 && strtol(text, NULL, 10) == SYS_futex;
}

/* Wakes F, unless it is forking, and waits until it has forked, or sleeps on a lock of W's. F may
 * not have reached the fork yet, so several looks in a row must see it asleep. */
static void fork_now(void)
{
    struct pollfd ready = {answer[0], POLLIN, 0};
    struct timespec now = {0, 0}, soon = {0, 50000};
    int looks = forking ? 1 : 4;
    char word = 'f';
    if (!forking && write(ask[1], &word, 1) != 1)
        return;
    forking = true;
    for (int blocked = 0; blocked < looks;) {
        if (ppoll(&ready, 1, looks == 1 && blocked == 0 ? &now : &soon, NULL) == 1) {
            CHECK(read(answer[0], &word, 1) == 1 && word == 'y');
            forking = false;
            shared->forks++;
            return;
        }
        blocked = is_blocked() ? blocked + 1 : 0;
    }
    shared->held++;
}

/* Where a breakpoint has stopped W, moves it to the instruction behind. */
static void pass_breakpoint(pid_t worker)
{
#if defined(__aarch64__)
    struct user_regs_struct registers;
    struct iovec place = {&registers, sizeof registers};
    CHECK(ptrace(PTRACE_GETREGSET, worker, NT_PRSTATUS, &place) == 0);
    registers.pc += 4;
    CHECK(ptrace(PTRACE_SETREGSET, worker, NT_PRSTATUS, &place) == 0);
#endif
}

/* Steps W through its scenario. */
static void trace(pid_t worker, int stride)
{
    int status;
    CHECK(ptrace(PTRACE_SEIZE, worker, NULL, NULL) == 0);
    atomic_store(&shared->seized, 1);
    while (waitpid(worker, &status, __WALL) == worker && WIFSTOPPED(status)) {
        if (shared->phase == STEPPED) {
            if (shared->steps == 0)
                pass_breakpoint(worker);
            if (shared->steps++ % stride == 0 || forking)
                fork_now();
        } else if (shared->phase == OVER && !forking) {
            break;
        }
        if (failures > 5)
            break;
        ptrace(PTRACE_SINGLESTEP, worker, NULL, NULL);
    }
    if (WIFSTOPPED(status))
        ptrace(PTRACE_DETACH, worker, NULL, NULL);
    while (forking && failures <= 5)
        fork_now();
}

static void trace_all(int stride)
{
    for (int n = 0; n < SCENARIOS && failures <= 5; n++)
        STEP(scenarios[n].name)
        {
            while (!shared->worker)
                usleep(100);
            shared->steps = shared->forks = shared->held = 0;
            trace(shared->worker, stride);
            fprintf(stderr, "%s: %ld instructions, %ld forks, %ld times a lock was held\n",
                    scenarios[n].name, shared->steps, shared->forks, shared->held);
            CHECK(shared->forks * stride * 2 > shared->steps - shared->held);
            shared->phase = shared->seized = 0;
            shared->worker = 0;
        }
}

static void anywhere(void)
{
    const char *steps = getenv("STEPS");
    int stride = steps ? atoi(steps) : 61, status = -1;
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(pipe(ask) == 0 && pipe(answer) == 0);
    pid_t pid = fork();
    if (pid == 0)
        tracee();
    shared->tracee = pid;
    trace_all(stride);
    if (failures)
        kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    CHECK(status == 0);
}

/* No helper thread, which a fork would end. */
CASES({"anywhere", anywhere, "OBMALLOC_DECAY_MS=-1"});
