/* What every C test has: named cases, checks, facts, the functions under test, patterns,
 * child processes.
 *
 * A program is a folder of c_tests; each of its files lists named cases at its end. Every case
 * runs in a process of its own: `program CASE` is that process, `program` starts one for each
 * case, `program --list` prints their names. A case prints facts on stdout, one a line, which
 * must be the same in every way that the program is linked; what went wrong goes to stderr, and
 * the exit status is the number of failed checks. With HOST_CPYTHON the same source runs on the
 * functions of a real CPython instead of the library's. */
#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#ifdef HOST_CPYTHON
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#else
#define OBMALLOC_TABLES /* though a Python.h may be found, too */
#include "obmalloc.h"
#endif

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
#include <time.h>
#include <unistd.h>

/* Threads, handlers and allocators have fixed parameters; most cases have two fields. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define LARGEST_REQUEST ((size_t)PTRDIFF_MAX) /* PY_SSIZE_T_MAX */
#define SMALL_MAX 512                         /* CPython's own limit for pools */
#define MEDIUM_MAX 32768                      /* above it: the C library */

/* ---- cases ---- */

struct test_case {
    const char *name;
    void (*run)(void);
    /* Settings, set before the program starts: "OBMALLOC_DECAY_MS=0 OBMALLOC_DEBUG=1". */
    const char *settings;
    /* The process starts with a file as its stderr, for `output_in_child`. */
    bool reads_stderr;
};

extern void add_cases(const struct test_case *cases, size_t n);

/* CASES({"name", function}, {"another", function, .settings = "..."}); */
#define CASES(...)                                                                 \
    static const struct test_case cases_[] = {__VA_ARGS__};                        \
    static __attribute__((constructor)) void add_cases_of_this_file(void)          \
    {                                                                              \
        add_cases(cases_, sizeof cases_ / sizeof *cases_);                         \
    }                                                                              \
    struct test_case /* so that a semicolon ends the list */

/* For what runs before main: whether this case is to run. */
extern bool is_case(const char *name);

/* RUNS_FIRST(function); calls it before all constructors, the library's too. musl runs no
 * .preinit_array: there it is called before the program's other constructors, and before the
 * library's if that is linked in. */
#ifdef __GLIBC__
#define RUNS_FIRST(function)                                               \
    __attribute__((section(".preinit_array"), used)) static void (*const   \
    first_)(void) = function
#else
#define RUNS_FIRST(function)                                               \
    static __attribute__((constructor(101))) void first_(void)            \
    {                                                                      \
        function();                                                        \
    }                                                                      \
    struct test_case
#endif

/* ---- checks and facts ---- */

extern atomic_int failures;
extern int exit_status(void);
enum { SKIPPED = 77 }; /* an exit status */

/* A true condition says nothing; a false one is reported and counted. */
#define CHECK(condition)                                                     \
    ((condition) ? (void)0                                                   \
                 : (void)(atomic_fetch_add(&failures, 1),                    \
                          fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, \
                                  __LINE__, #condition)))

/* STEP("name") { ... }: runs the block once, then prints how it went. */
#define STEP(name)                                                        \
    for (int before_ = failures, once_ = 1; once_;                        \
         once_ = 0, printf("%s: %s\n", name,                              \
                           failures == before_ ? "ok" : "FAILED"))

#define FACT(...) (printf(__VA_ARGS__), putchar('\n'))

/* system() without LD_PRELOAD: the shell may be of another C library than the library. */
extern int shell(const char *command);

/* Ends the case: what it needs is not here. */
extern _Noreturn void skip(const char *reason);

/* ---- the functions under test; a program that must not name them defines NO_API ---- */

#ifndef NO_API

struct domain {
    const char *name;
    void *(*malloc)(size_t n);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *p, size_t n);
    void (*free)(void *p);
};

static const struct domain raw __attribute__((unused)) = {
    "raw", PyMem_RawMalloc, PyMem_RawCalloc, PyMem_RawRealloc, PyMem_RawFree};
static const struct domain mem __attribute__((unused)) = {
    "mem", PyMem_Malloc, PyMem_Calloc, PyMem_Realloc, PyMem_Free};
static const struct domain obj __attribute__((unused)) = {
    "obj", PyObject_Malloc, PyObject_Calloc, PyObject_Realloc, PyObject_Free};

static const struct domain *const domains[] __attribute__((unused)) = {&raw, &mem, &obj};

#define FOR_EACH_DOMAIN(d)                                              \
    for (const struct domain *const *d##_ = domains, *d;               \
         d##_ < domains + 3 && (d = *d##_, 1); d##_++)

#endif

/* ---- the interpreter's lock: a real one needs it, the library does not ---- */

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

/* ---- threads: each gets its number, from 0, as its argument ---- */

extern void start_threads(int n, pthread_t *threads, void *(*body)(void *));
extern void join_threads(int n, const pthread_t *threads);

/* ---- time ---- */

/* How many times as long the limits of time are: TEST_SLOWNESS, where an emulator runs the program. */
extern unsigned slowness(void);
/* Of a clock that is slower by that. */
extern double seconds(void);
#define alarm(limit) alarm((limit) * slowness())

/* Whether the condition comes true within `limit` seconds. */
#define COMES(condition, limit)                                   \
    ({                                                            \
        const double until_ = seconds() + (limit);                \
        bool came_;                                               \
        while (!(came_ = (condition)) && seconds() < until_)      \
            usleep(300);                                          \
        came_;                                                    \
    })

/* Whether the program's own calls make it true: calls and pauses by turns until `limit`
 * seconds have passed, but at least `times` times, however busy the machine is. */
#define COMES_BY(call, pause, condition, limit, times)            \
    ({                                                            \
        const double until_ = seconds() + (limit);                \
        int times_ = (times);                                     \
        bool came_;                                               \
        while (!(came_ = (condition)) &&                          \
               (times_-- > 0 || seconds() < until_)) {            \
            call;                                                 \
            usleep(pause);                                        \
        }                                                         \
        came_;                                                    \
    })

/* ---- child processes ---- */

/* fork() as the host would do it. */
extern pid_t host_fork(void);

/* The child's wait status. A child that hangs is killed after 15 seconds: an alarm of its own
 * would be too late, for it may hang within fork already. */
extern int status_of(pid_t pid);

/* Runs `body` in a child process and returns its wait status. The child's
 * exit status is its own number of failures. */
extern int in_child(void (*body)(void *), void *argument);

/* Executes this program anew. Where an emulator runs it, TEST_RUNNER has the words that start one:
 * the kernel would not run the program's file. Returns only if that fails. */
extern void run_this_program(char **argv);

/* in_child, with what the child writes to stderr in `output`; for cases with .reads_stderr. */
extern int output_in_child(void (*body)(void *), void *argument, char *output, size_t room);

/* How often `what` occurs in `output`. */
extern int occurrences(const char *output, const char *what);

/* Whether the library ended the child as it promises to: one line on stderr, and abort. */
extern bool ended_in_one_line(int status, const char *output);

/* ---- patterns: what a block holds, so that overlaps show ---- */

extern void fill(void *block, size_t n, size_t seed);
extern bool holds(const void *block, size_t n, size_t seed);
extern size_t random_below(uint64_t *state, size_t bound);

#endif
