/* What every test program shares: checks, facts, the API under test, patterns.
 *
 * A program prints facts on stdout, one a line, the same in every way it is
 * run (run.py compares them); what went wrong goes to stderr, and the exit
 * status is the number of failures. With HOST_CPYTHON the very same program
 * runs on a real CPython's functions instead of ours. */
#ifndef HARNESS_H
#define HARNESS_H

#ifdef HOST_CPYTHON
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#endif
#include "api.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAYBE_UNUSED __attribute__((unused))
#define LARGEST_REQUEST ((size_t)PTRDIFF_MAX) /* PY_SSIZE_T_MAX */
#define SMALL_MAX 512                         /* stock's own limit for pools */
#define MEDIUM_MAX 32768                      /* above it: the C library */

static atomic_int failures;

/* A true condition says nothing; a false one is reported and counted. */
#define CHECK(condition)                                                     \
    ((condition) ? (void)0                                                   \
                 : (void)(atomic_fetch_add(&failures, 1),                    \
                          fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, \
                                  __LINE__, #condition)))

/* CHECK_BODY("name") { ... }: runs the block once, then prints how it went. */
#define CHECK_BODY(name)                                                  \
    for (int before_ = failures, once_ = 1; once_;                        \
         once_ = 0, printf("%s: %s\n", name,                              \
                           failures == before_ ? "ok" : "FAILED"))

#define FACT(...) (printf(__VA_ARGS__), putchar('\n'))

static MAYBE_UNUSED int exit_status(void)
{
    return failures > 100 ? 100 : failures;
}

/* ---- the interpreter's lock: a real one asks for it, we do not ---- */

#ifdef HOST_CPYTHON
#define LOCKED(statement)                             \
    do {                                              \
        PyGILState_STATE gil_ = PyGILState_Ensure();  \
        statement;                                    \
        PyGILState_Release(gil_);                     \
    } while (0)
#define UNLOCKED(statement)    /* for waiting: main holds the lock */ \
    do {                                              \
        PyThreadState *main_ = PyEval_SaveThread();   \
        statement;                                    \
        PyEval_RestoreThread(main_);                  \
    } while (0)
/* Around a whole thread, in tests that fork: LOCKED then makes no thread
 * state, and a fork at that very moment hangs the child of a real CPython. */
#define THREAD_BEGIN                                  \
    PyGILState_STATE gil_ = PyGILState_Ensure();      \
    PyThreadState *thread_ = PyEval_SaveThread()
#define THREAD_END (PyEval_RestoreThread(thread_), PyGILState_Release(gil_))
#else
#define LOCKED(statement) do { statement; } while (0)
#define UNLOCKED(statement) do { statement; } while (0)
#define THREAD_BEGIN (void)0
#define THREAD_END (void)0
#endif

/* fork() as the host would do it. */
static MAYBE_UNUSED pid_t host_fork(void)
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

/* Waits, but not for ever: a child that hangs has failed. It may hang within
 * fork already, so an alarm of its own would come too late. */
static MAYBE_UNUSED int status_of(pid_t pid)
{
    int status = -1;
    for (int tries = 0; waitpid(pid, &status, WNOHANG) == 0; tries++) {
        if (tries == 30000) {
            fprintf(stderr, "child %d hangs\n", (int)pid);
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            break;
        }
        usleep(500);
    }
    return status;
}

/* Runs `body` in a child process and returns its wait status. The child's
 * exit status is its own number of failures. */
static MAYBE_UNUSED int in_child(void (*body)(void *), void *argument)
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

/* ---- patterns: what a block holds, so that overlaps show ---- */

/* By stretches of 256 bytes and vectors: most of the tests' time would go here. */
#define QUICK MAYBE_UNUSED __attribute__((optimize("O3")))
enum { STRETCH = 256 };

static QUICK void fill(void *block, size_t n, size_t seed)
{
    for (size_t i = 0; i < n; i += STRETCH) {
        unsigned char *bytes = (unsigned char *)block + i;
        const unsigned char first = (unsigned char)(seed + i * 7 + (i >> 8));
        for (unsigned j = 0; j < (n - i < STRETCH ? n - i : STRETCH); j++)
            bytes[j] = (unsigned char)(first + j * 7);
    }
}

static QUICK bool holds(const void *block, size_t n, size_t seed)
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

static MAYBE_UNUSED size_t random_below(uint64_t *state, size_t bound)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (size_t)(*state % bound);
}

/* ---- the program: TEST_MAIN { ... } ---- */

static MAYBE_UNUSED void (*before_test)(void); /* what a header of ours has to do first */

#define TEST_MAIN                                    \
    static void test_main(void);                     \
    int main(void)                                   \
    {                                                \
        setvbuf(stdout, NULL, _IOLBF, 0);            \
        if (before_test)                             \
            before_test();                           \
        START_HOST();                                \
        test_main();                                 \
        return exit_status();                        \
    }                                                \
    static void test_main(void)

#ifdef HOST_CPYTHON
#define START_HOST() Py_InitializeEx(0)
#else
#define START_HOST() (void)0
#endif

#endif
