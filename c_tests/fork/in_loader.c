/* ways: so a
 *
 * Threads that make their first allocation look for a CPython in the loader's list, with the
 * loader's lock, while others fork. A child must not inherit that lock from a thread that it does
 * not have. Each step through the list takes a millisecond here. */
#include "harness.h"
#include <dlfcn.h>
#include <link.h>

enum { THREADS = 4, FORKERS = 4, DEADLINE = 10 };

typedef int (*visitor)(struct dl_phdr_info *, size_t, void *);

struct visit {
    visitor visitor;
    void *argument;
};

static bool slow; /* in this case of the program */

static int visit_slowly(struct dl_phdr_info *info, size_t size, void *argument)
{
    const struct visit *visit = argument;
    if (slow)
        usleep(1000);
    return visit->visitor(info, size, visit->argument);
}

/* The library calls this function in place of the C library's. */
int dl_iterate_phdr(visitor visitor, void *argument)
{
    typedef int (*iterate)(int (*)(struct dl_phdr_info *, size_t, void *), void *);
    static _Atomic(iterate) next;
    if (!next)
        next = (iterate)dlsym(RTLD_NEXT, "dl_iterate_phdr");
    struct visit visit = {visitor, argument};
    return next(visit_slowly, &visit);
}

static void *allocate(void *unused)
{
    PyObject_Free(PyObject_Malloc(64));
    return unused;
}

static void *fork_once(void *number)
{
    usleep(2000 * (uintptr_t)number);
    int status = -1;
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(DEADLINE);
        allocate(NULL);
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(status == 0); /* SIGALRM: it hangs */
    return NULL;
}

static void beside_first_allocations(void)
{
    slow = true;
    pthread_t threads[THREADS], forkers[FORKERS];
    start_threads(FORKERS, forkers, fork_once);
    start_threads(THREADS, threads, allocate);
    join_threads(THREADS, threads);
    join_threads(FORKERS, forkers);
}

CASES({"beside-first-allocations", beside_first_allocations});
