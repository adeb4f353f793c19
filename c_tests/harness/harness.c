/* The functions that harness.h declares, but for the cases. */
#define NO_API
#include "harness.h"

#include <fcntl.h>

atomic_int failures;

int exit_status(void)
{
    return failures > 100 ? 100 : failures;
}

void skip(const char *reason)
{
    fprintf(stderr, "%s\n", reason);
    exit(SKIPPED);
}

int shell(const char *command)
{
    char *preload = getenv("LD_PRELOAD");
    preload = preload ? strdup(preload) : NULL;
    unsetenv("LD_PRELOAD");
    const int status = system(command);
    if (preload)
        setenv("LD_PRELOAD", preload, 1);
    free(preload);
    return status;
}

bool is_case(const char *name)
{
    char words[4096] = "";
    const int fd = open("/proc/self/cmdline", O_RDONLY);
    const ssize_t length = read(fd, words, sizeof words - 1);
    close(fd);
    const char *second = words + strlen(words) + 1;
    return length > 0 && second + strlen(second) + 1 == words + length && strcmp(second, name) == 0;
}

unsigned slowness(void)
{
    static _Atomic unsigned times;
    if (times == 0) {
        const char *text = getenv("TEST_SLOWNESS");
        times = text && atoi(text) > 0 ? (unsigned)atoi(text) : 1;
    }
    return times;
}

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return ((double)now.tv_sec + (double)now.tv_nsec / 1e9) / slowness();
}

/* ---- threads ---- */

void start_threads(int n, pthread_t *threads, void *(*body)(void *))
{
    for (uintptr_t i = 0; i < (uintptr_t)n; i++)
        CHECK(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
}

void join_threads(int n, const pthread_t *threads)
{
    for (int i = 0; i < n; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

/* ---- child processes ---- */

pid_t host_fork(void)
{
#ifdef HOST_CPYTHON
    PyOS_BeforeFork();
#endif
    pid_t pid = fork();
#ifdef HOST_CPYTHON
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
#endif
    return pid;
}

int status_of(pid_t pid)
{
    int status = -1;
    for (int tries = 0; waitpid(pid, &status, WNOHANG) == 0; tries++) {
        if (tries == 30000 * (int)slowness()) {
            fprintf(stderr, "child %d hangs\n", (int)pid);
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            break;
        }
        usleep(500);
    }
    return status;
}

int in_child(void (*body)(void *), void *argument)
{
    int before = failures; /* fork handlers may add to it, in the child too */
    pid_t pid = host_fork();
    if (pid == 0) {
        failures -= before;
        body(argument);
        fflush(stdout);
        _exit(exit_status());
    }
    CHECK(pid > 0);
    return pid > 0 ? status_of(pid) : -1;
}

int stderr_file = -1; /* what stderr was when the program started; set by cases.c */

int output_in_child(void (*body)(void *), void *argument, char *output, size_t room)
{
    int saved = dup(2);
    CHECK(ftruncate(stderr_file, 0) == 0 && lseek(stderr_file, 0, SEEK_SET) == 0);
    dup2(stderr_file, 2);
    int status = in_child(body, argument);
    dup2(saved, 2);
    close(saved);
    ssize_t length = pread(stderr_file, output, room - 1, 0);
    CHECK(length >= 0);
    output[length > 0 ? length : 0] = 0;
    char *emulator = strstr(output, "qemu: uncaught target signal");
    if (getenv("TEST_RUNNER") && emulator)
        *emulator = 0; /* its own report of the child's end */
    return status;
}

int occurrences(const char *output, const char *what)
{
    int n = 0;
    for (; (output = strstr(output, what)); output++)
        n++;
    return n;
}

bool ended_in_one_line(int status, const char *output)
{
    const char *line_end = strchr(output, '\n');
    bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    bool one_line = strncmp(output, "obmalloc: ", 10) == 0 && line_end && line_end[1] == 0;
    if (!aborted || !one_line)
        fprintf(stderr, "wait status %#x, output: %s\n", (unsigned)status, output);
    return aborted && one_line;
}

/* ---- patterns ---- */

/* By stretches of 256 bytes and vectors: most of the tests' time would go here. */
#define QUICK __attribute__((optimize("O3")))
enum { STRETCH = 256 };

QUICK void fill(void *block, size_t n, size_t seed)
{
    for (size_t i = 0; i < n; i += STRETCH) {
        unsigned char *bytes = (unsigned char *)block + i;
        const unsigned char first = (unsigned char)(seed + i * 7 + (i >> 8));
        for (unsigned j = 0; j < (n - i < STRETCH ? n - i : STRETCH); j++)
            bytes[j] = (unsigned char)(first + j * 7);
    }
}

QUICK bool holds(const void *block, size_t n, size_t seed)
{
    unsigned char difference = 0;
    for (size_t i = 0; i < n && difference == 0; i += STRETCH) {
        const unsigned char *bytes = (const unsigned char *)block + i;
        const unsigned char first = (unsigned char)(seed + i * 7 + (i >> 8));
        for (unsigned j = 0; j < (n - i < STRETCH ? n - i : STRETCH); j++)
            difference |= bytes[j] ^ (unsigned char)(first + j * 7);
    }
    return difference == 0;
}

size_t random_below(uint64_t *state, size_t bound)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (size_t)(*state % bound);
}
