/* ways: dl
 *
 * The library opened by dlopen, by its path in C_TEST_LIBRARY, while threads already run: they
 * have no thread state from it, and its thread-local word must fit into the space that the C
 * library keeps for late arrivals. */
#define NO_API
#include "harness.h"
#include <dlfcn.h>

enum { THREADS = 6 };

static void *(*object_malloc)(size_t);
static void *(*object_realloc)(void *, size_t);
static void (*object_free)(void *);
static const char *(*version)(void);
static int (*install)(void);
static pthread_barrier_t opened, done, closed;
static atomic_uint bad;

static void work(size_t seed)
{
    void *p[400];
    for (size_t i = 0; i < 400; i++)
        fill(p[i] = object_malloc(i * 7), i * 7, seed + i);
    for (size_t i = 0; i < 400; i++) {
        p[i] = object_realloc(p[i], i * 90);
        bad += !holds(p[i], i * 7, seed + i);
        object_free(p[i]);
    }
}

static void *early_thread(void *argument)
{
    pthread_barrier_wait(&opened);
    work((uintptr_t)argument);
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&closed); /* and ends after dlclose */
    return NULL;
}

static void *late_thread(void *argument)
{
    work((uintptr_t)argument);
    return NULL;
}

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (found == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return found;
}

static void *open_library(void)
{
    const char *path = getenv("C_TEST_LIBRARY");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL) {
        fprintf(stderr, "dlopen: %s\n", path ? dlerror() : "no C_TEST_LIBRARY");
        exit(1);
    }
    *(void **)&object_malloc = symbol(library, "PyObject_Malloc");
    *(void **)&object_realloc = symbol(library, "PyObject_Realloc");
    *(void **)&object_free = symbol(library, "PyObject_Free");
    *(void **)&version = symbol(library, "obmalloc_version");
    *(void **)&install = symbol(library, "obmalloc_install");
    return library;
}

static void opened_late(void)
{
    pthread_t early[THREADS], late[THREADS];
    pthread_barrier_init(&opened, NULL, THREADS + 1);
    pthread_barrier_init(&done, NULL, THREADS + 1);
    pthread_barrier_init(&closed, NULL, THREADS + 1);
    start_threads(THREADS, early, early_thread);

    void *library = open_library();
    STEP("opened late") {
        CHECK(strcmp(version(), "0.1.0") == 0);
        CHECK(install() > 0); /* no CPython here */
        work(99);
    }
    STEP("threads from before and after") {
        pthread_barrier_wait(&opened);
        start_threads(THREADS, late, late_thread);
        join_threads(THREADS, late);
        pthread_barrier_wait(&done);
        CHECK(bad == 0);
    }
    STEP("dlclose while threads have state") {
        CHECK(dlclose(library) == 0);
        pthread_barrier_wait(&closed);
        join_threads(THREADS, early);
    }
    STEP("fork and exit afterwards") {
        open_library();
        pid_t pid = fork();
        if (pid == 0) {
            work(3);
            _exit(bad != 0);
        }
        CHECK(pid > 0 && status_of(pid) == 0);
    }
}

CASES({"dlopen-beside-threads", opened_late});
