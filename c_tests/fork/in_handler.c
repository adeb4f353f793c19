/* ways: so a pre
 *
 * Signal handlers that fork, whatever they have interrupted: malloc, free, realloc, trim, or a
 * fork. Crash reporters do that. In a process of one thread the child may go on where the handler
 * has interrupted it, and finds the heap whole; beside other threads the child may do what POSIX
 * allows, which is little, but never hangs. And a handler that allocates, which is allowed if it
 * has interrupted none of the library's functions, while another thread forks. */
#include "harness.h"

#include <errno.h>
#include <sys/time.h>

enum { BLOCKS = 3000, FORKS = 60, WORKERS = 3, PATIENCE = 25 };

static void *blocks[BLOCKS];
static size_t sizes[BLOCKS];
static uint64_t state = 88172645463325252u;
/* Larger blocks may be the C library's: if the handler has interrupted its malloc, its own fork
 * waits for that for ever, once the process has had a second thread (glibc), such as the helper. */
enum { LARGEST = SMALL_MAX };

/* ---- what is interrupted ---- */

static void get(size_t i)
{
    static const size_t most[] = {64, LARGEST};
    const size_t size = 1 + random_below(&state, most[random_below(&state, 2)]);
    void *block = obj.malloc(size);
    CHECK(block != NULL);
    fill(block, size, i);
    sizes[i] = size;
    blocks[i] = block;
}

static void put(size_t i)
{
    void *block = blocks[i];
    CHECK(holds(block, sizes[i], i));
    blocks[i] = NULL;
    obj.free(block);
}

static void change(size_t i)
{
    const size_t before = sizes[i], size = 1 + random_below(&state, LARGEST);
    void *block = obj.realloc(blocks[i], size);
    CHECK(block != NULL && holds(block, before < size ? before : size, i));
    fill(block, size, i);
    sizes[i] = size;
    blocks[i] = block;
}

static void work(int steps)
{
    while (steps-- > 0) {
        const size_t i = random_below(&state, BLOCKS);
        if (!blocks[i])
            get(i);
        else if (random_below(&state, 4) == 0)
            change(i);
        else
            put(i);
    }
}

static void in_waves(void)
{
    for (size_t i = 0; i < BLOCKS; i++)
        if (!blocks[i])
            get(i);
    for (size_t i = 0; i < BLOCKS; i++)
        if (i % 7 != 0)
            put(i);
    obmalloc_trim(0);
    work(2000);
}

static void all_whole(void)
{
    for (size_t i = 0; i < BLOCKS; i++)
        CHECK(!blocks[i] || holds(blocks[i], sizes[i], i));
}

static void end_all(void)
{
    for (size_t i = 0; i < BLOCKS; i++)
        if (blocks[i])
            put(i);
}

/* ---- the handler ---- */

enum life { EXITS, EXECS, GOES_ON };

static volatile sig_atomic_t forks, died;
static volatile bool is_child;
static enum life life;

/* A timer that waits until the handler is done: else the program never comes on where a
 * fork takes longer than the interval. */
static void in_a_while(void)
{
    const long microseconds = 150 + (forks * 37) % 350;
    const struct itimerval once = {{0, 0}, {0, microseconds}};
    setitimer(ITIMER_REAL, &once, NULL);
}

static int status_within(pid_t pid)
{
    int status = -1;
    const double until = seconds() + PATIENCE;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (seconds() > until) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            break;
        }
        usleep(100);
    }
    return status;
}

static void forks_again(int number)
{
    if (is_child)
        return;
    const int before = errno;
    const pid_t pid = fork();
    if (pid == 0) {
        is_child = true;
        if (life == EXITS)
            _exit(0);
        if (life == EXECS) {
            /* Without the preload: the program may be of another C library. */
            execle("/bin/true", "true", (char *)NULL, (char *[]){NULL});
            _exit(99);
        }
        return; /* goes on where it was interrupted */
    }
    forks++;
    died += pid < 0 || status_within(pid) != 0;
    in_a_while();
    errno = before;
}

static void child_ends(void)
{
    work(3000);
    all_whole();
    end_all();
    obmalloc_trim(0);
    _exit(exit_status());
}

static void until_enough(void (*does)(void))
{
    const double until = seconds() + PATIENCE;
    forks = died = 0;
    signal(SIGALRM, forks_again);
    in_a_while();
    while (forks < FORKS && seconds() < until) {
        does();
        if (is_child)
            child_ends();
    }
    signal(SIGALRM, SIG_IGN);
    CHECK(died == 0 && forks >= FORKS);
    all_whole();
    end_all();
}

/* A fork that is interrupted by one: both children go on. */
static void forks_itself(void)
{
    work(50);
    const pid_t pid = fork();
    if (pid == 0) {
        is_child = true;
        child_ends();
    }
    CHECK(pid > 0);
    const int status = status_within(pid);
    CHECK(status == 0 || is_child); /* a copy made here has no such child */
    work(50);
}

static void alone(void)
{
    static const enum life lives[] = {EXITS, EXECS, GOES_ON};
    for (int i = 0; i < 3; i++) {
        life = lives[i];
        until_enough(in_waves);
    }
    life = GOES_ON;
    until_enough(forks_itself);
}

/* ---- beside other threads, which the child does not have ---- */

static atomic_bool stop;

static void *churn(void *argument)
{
    sigset_t alarm_only;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm_only, NULL); /* the handler is main's */
    uint64_t random = (uintptr_t)argument;
    void *mine[400] = {NULL};
    while (!stop) {
        const size_t i = random_below(&random, 400);
        obj.free(mine[i]);
        mine[i] = obj.malloc(random_below(&random, LARGEST));
        if (random_below(&random, 3000) == 0)
            obmalloc_trim(0);
    }
    for (int i = 0; i < 400; i++)
        obj.free(mine[i]);
    return NULL;
}

static void beside(void *(*run)(void *), int n, void (*does)(void))
{
    pthread_t threads[WORKERS];
    stop = false;
    for (int i = 0; i < n; i++)
        CHECK(pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)(i * 7919 + 5)) == 0);
    does();
    stop = true;
    join_threads(n, threads);
}

static void both_ways(void)
{
    static const enum life lives[] = {EXITS, EXECS};
    for (int i = 0; i < 2; i++) {
        life = lives[i];
        until_enough(in_waves);
    }
}

static void among_others(void)
{
    beside(churn, WORKERS, both_ways);
}

/* ---- a handler that allocates ---- */

static atomic_long handled;

static void allocates(int number)
{
    const int before = errno;
    void *taken[40];
    for (int i = 0; i < 40; i++)
        taken[i] = obj.malloc(32 + 12 * (size_t)i);
    for (int i = 0; i < 40; i++)
        obj.free(taken[i]);
    handled++;
    errno = before;
}

/* The handler interrupts none of the library's functions, or fork. */
static void *counts(void *argument)
{
    while (!stop)
        for (volatile int i = 0; i < 1000; i++)
            ;
    return argument;
}

static void forks_often(void)
{
    const struct itimerval each = {{0, 300}, {0, 300}};
    signal(SIGALRM, allocates);
    setitimer(ITIMER_REAL, &each, NULL);
    for (int i = 0; i < FORKS; i++) {
        const pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        CHECK(pid > 0 && status_within(pid) == 0);
    }
    signal(SIGALRM, SIG_IGN);
    CHECK(handled > 0);
}

static void a_handler_allocates(void)
{
    beside(counts, WORKERS, forks_often);
}

static void first_use(void (*body)(void))
{
    alarm(0);
    obj.free(obj.malloc(1));
    body();
}

static void in_one_thread(void) { first_use(alone); }
static void beside_others(void) { first_use(among_others); }
static void allocates_in_one(void) { first_use(a_handler_allocates); }

CASES({"in-handler-of-one-thread", in_one_thread},
      {"in-handler-beside-other-threads", beside_others},
      {"in-handler-that-allocates", allocates_in_one});
