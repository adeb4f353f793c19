/* ways: so a pre host
 *
 * The end of a thread: destructors of thread keys and of thread_local objects that allocate and
 * free, in every order around the library's own end-of-thread work and up to the last of the four
 * rounds; and pthread_exit from main. */
#include "harness.h"

/* What C++ compilers call for a thread_local object with a destructor. musl has none: there the
 * C++ library takes a thread key. */
extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *) __attribute__((weak));
extern void *__dso_handle;

enum { THREADS = 40, ROUNDS = 4 };

static pthread_key_t early_key, late_key; /* made before and after first use */
static pthread_key_t object_key;          /* of thread_local objects */
static atomic_int rounds_early, rounds_late, objects, bad;

/* A thread's last belongings: one block from its life, given back now. */
struct belongings {
    void *p;
    int round;
    pthread_key_t *key;
    atomic_int *rounds;
};

static void work(void)
{
    void *p[3][60];
    for (size_t i = 0; i < 60; i++)
        for (int d = 0; d < 3; d++)
            fill(p[d][i] = domains[d]->malloc(i * i * 10), i * i * 10, i);
    for (size_t i = 0; i < 60; i++)
        for (int d = 0; d < 3; d++) {
            bad += !holds(p[d][i], i * i * 10, i);
            domains[d]->free(p[d][i]);
        }
}

static void end_of_key(void *argument)
{
    struct belongings *own = argument;
    ++*own->rounds;
    LOCKED(bad += !holds(own->p, 100, own->round); obj.free(own->p); work());
    if (++own->round < ROUNDS) {
        LOCKED(own->p = obj.malloc(100));
        fill(own->p, 100, own->round);
        pthread_setspecific(*own->key, own); /* asks for another round */
    } else {
        free(own);
    }
}

static void end_of_object(void *p)
{
    objects++;
    LOCKED(bad += !holds(p, 200, 9); mem.free(p); work());
}

static void at_thread_exit(void *object)
{
    if (__cxa_thread_atexit_impl)
        __cxa_thread_atexit_impl(end_of_object, object, &__dso_handle);
    else
        pthread_setspecific(object_key, object);
}

static void leave_behind(pthread_key_t *key, atomic_int *rounds)
{
    struct belongings *own = malloc(sizeof *own);
    *own = (struct belongings){NULL, 0, key, rounds};
    LOCKED(own->p = obj.malloc(100));
    fill(own->p, 100, 0);
    pthread_setspecific(*key, own);
}

static void *thread(void *argument)
{
    void *object = NULL;
    if ((uintptr_t)argument % 2) /* half the threads: before their first use */
        at_thread_exit(object = malloc(300));
    leave_behind(&early_key, &rounds_early);
    LOCKED(work());
    leave_behind(&late_key, &rounds_late);
    if (object == NULL) {
        LOCKED(object = mem.malloc(300));
        at_thread_exit(object);
    }
    fill(object, 200, 9);
    if ((uintptr_t)argument % 3 == 0)
        pthread_exit(NULL);
    return NULL;
}

static void run_threads(void)
{
    pthread_t threads[THREADS];
    start_threads(THREADS, threads, thread);
    join_threads(THREADS, threads);
}

static pthread_t main_thread;

static void *outlives_main(void *argument)
{
    pthread_join(main_thread, NULL);
    LOCKED(work());
    FACT("the other thread works on after main");
    fflush(stdout);
    _exit(exit_status());
    return argument;
}

/* Not in a forked child: there a thread of musl waits for main for ever, without the library, too. */
static void main_leaves(void)
{
    pthread_t other;
    pthread_key_create(&early_key, end_of_key);
    leave_behind(&early_key, &rounds_early);
    main_thread = pthread_self();
    pthread_create(&other, NULL, outlives_main, NULL);
#ifdef HOST_CPYTHON
    PyEval_SaveThread();
#endif
    pthread_exit(NULL);
}

static void ends_of_threads(void)
{
    pthread_key_create(&object_key, end_of_object);
    pthread_key_create(&early_key, end_of_key);
    work();
    pthread_key_create(&late_key, end_of_key);
    STEP("destructors at the end of threads") {
        UNLOCKED(run_threads());
        CHECK(bad == 0);
        CHECK(objects == THREADS);
        CHECK(rounds_early == THREADS * ROUNDS && rounds_late == THREADS * ROUNDS);
        FACT("%d and %d rounds, %d objects", rounds_early, rounds_late, objects);
    }
}

CASES({"exit", ends_of_threads}, {"exit-from-main", main_leaves});
