/* ways: so a pre host
 *
 * fork while other threads allocate. The child has only the thread that forked; whatever the
 * others were doing at that instant, the child must be able to allocate in every class, free
 * inherited blocks, start threads and fork again. A lock that stays held would hang it. */
#include "harness.h"

enum { FORKS = 80, WORKERS = 4, SHELF = 64 };

static atomic_bool stop;
static atomic_uint ready;
static atomic_uint rounds;

/* Blocks on the shelf belong to whoever holds its lock. */
static pthread_mutex_t shelf_lock = PTHREAD_MUTEX_INITIALIZER;
static void *shelf[SHELF];

static void use_all_classes(size_t seed)
{
    void *p[120];
    size_t n = seed % 16, bad = 0;
    for (int i = 0; i < 120; i++, n += 16 + n / 9)
        fill(p[i] = obj.malloc(n % 60000), n % 60000 < 64 ? n % 60000 : 64, seed + i);
    n = seed % 16;
    for (int i = 0; i < 120; i++, n += 16 + n / 9) {
        bad += !holds(p[i], n % 60000 < 64 ? n % 60000 : 64, seed + i);
        obj.free(p[i]);
    }
    CHECK(bad == 0);
}

static void *worker(void *argument)
{
    uint64_t random = 99 + (uintptr_t)argument;
    THREAD_BEGIN;
    ready++;
    while (!stop) {
        LOCKED(use_all_classes((size_t)random));
        size_t i = random_below(&random, SHELF), n = 64 + random_below(&random, 2000);
        void *fresh;
        LOCKED(fresh = obj.malloc(n));
        fill(fresh, 64, i);
        pthread_mutex_lock(&shelf_lock);
        void *old = shelf[i];
        shelf[i] = fresh;
        pthread_mutex_unlock(&shelf_lock);
        LOCKED(obj.free(old));
        rounds++;
    }
    THREAD_END;
    return NULL;
}

static void *short_worker(void *argument)
{
    LOCKED(use_all_classes((uintptr_t)argument));
    return NULL;
}

static void empty_shelf(void)
{
    for (size_t i = 0; i < SHELF; i++) {
        CHECK(shelf[i] == NULL || holds(shelf[i], 64, i));
        if (i % 2)
            shelf[i] = obj.realloc(shelf[i], 3000);
        obj.free(shelf[i]);
    }
}

static void grandchild(void *argument)
{
    empty_shelf();
    use_all_classes(5);
}

static void child(void *argument)
{
    pthread_t thread;
    use_all_classes(*(size_t *)argument);
    CHECK(in_child(grandchild, NULL) == 0);
    empty_shelf();
    CHECK(pthread_create(&thread, NULL, short_worker, NULL) == 0);
    UNLOCKED(pthread_join(thread, NULL));
    use_all_classes(7);
}

static void fork_often(void)
{
    unsigned died = 0;
    for (size_t i = 0; i < FORKS && died == 0; i++) {
        unsigned before = rounds;
        UNLOCKED(while (rounds < before + WORKERS) usleep(50);
                 pthread_mutex_lock(&shelf_lock));
        died += in_child(child, &i) != 0; /* the shelf stands still meanwhile */
        pthread_mutex_unlock(&shelf_lock);
    }
    CHECK(died == 0);
    FACT("%d children with a child each, %u died", FORKS, died);
}

static void while_threads_allocate(void)
{
    pthread_t threads[WORKERS];
    alarm(50);
    start_threads(WORKERS, threads, worker);
    UNLOCKED(while (ready < WORKERS) usleep(100));
    STEP("fork while others allocate") fork_often();
    stop = true;
    UNLOCKED(join_threads(WORKERS, threads));
    STEP("the parent goes on") use_all_classes(11);
}

CASES({"while-threads-allocate", while_threads_allocate});
