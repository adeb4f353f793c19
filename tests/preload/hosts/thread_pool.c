/* A library with a pool of threads that it ends before each fork and starts again when needed. Its
 * prepare handler waits for threads that have called into Python, and that return their memory
 * when they end. */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

extern int PyGILState_Ensure(void);
extern void PyGILState_Release(int);
extern int PyRun_SimpleString(const char *);
extern void *PyMem_RawMalloc(size_t);
extern void PyMem_RawFree(void *);

enum { THREADS = 2 };

static pthread_t threads[THREADS];
static atomic_bool stop;
static bool is_up;
static sem_t is_ready;

static void *work(void *argument)
{
    const int state = PyGILState_Ensure();
    PyRun_SimpleString("pool_made = [(n, str(n), {n: n}) for n in range(2000)]; del pool_made");
    PyGILState_Release(state);
    sem_post(&is_ready);
    while (!stop)
        usleep(500);
    return argument;
}

static void end(void)
{
    if (!is_up)
        return;
    is_up = false;
    stop = true;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

void pool_register(void)
{
    sem_init(&is_ready, 0, 0);
    pthread_atfork(end, NULL, NULL);
}

/* Called without the GIL. */
int pool_start(void)
{
    stop = false;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            return -1;
    for (int i = 0; i < THREADS; i++)
        sem_wait(&is_ready);
    is_up = true;
    return 0;
}

#ifdef AT_START
__attribute__((constructor)) static void at_start(void)
{
    pool_register();
}
#endif
