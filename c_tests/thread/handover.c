/* ways: so a pre host tsan
 *
 * Blocks allocated in one thread and freed in another, as happens under the GIL all the time.
 * Producers and consumers share a bounded queue; consumers check the contents, and resize some
 * blocks before they free them. */
#include "harness.h"

enum { PRODUCERS = 3, CONSUMERS = 3, EACH = 8000, ROOM = 256 };

struct parcel {
    const struct domain *domain;
    void *p;
    size_t n, seed;
};

static struct parcel queue[ROOM];
static unsigned head, count;
static unsigned delivered;
static atomic_uint bad;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER;
static pthread_cond_t not_full = PTHREAD_COND_INITIALIZER;

static void put(struct parcel parcel)
{
    pthread_mutex_lock(&lock);
    while (count == ROOM)
        pthread_cond_wait(&not_full, &lock);
    queue[(head + count++) % ROOM] = parcel;
    pthread_cond_signal(&not_empty);
    pthread_mutex_unlock(&lock);
}

static bool get(struct parcel *parcel)
{
    pthread_mutex_lock(&lock);
    while (count == 0 && delivered < PRODUCERS * EACH)
        pthread_cond_wait(&not_empty, &lock);
    bool got = count > 0;
    if (got) {
        *parcel = queue[head];
        head = (head + 1) % ROOM;
        count--;
        if (++delivered == PRODUCERS * EACH)
            pthread_cond_broadcast(&not_empty);
        pthread_cond_signal(&not_full);
    }
    pthread_mutex_unlock(&lock);
    return got;
}

static void *produce(void *argument)
{
    uint64_t random = 1234567 + (uintptr_t)argument;
    for (size_t i = 0; i < EACH; i++) {
        struct parcel parcel = {.domain = domains[i % 3], .seed = random & 0xffff};
        parcel.n = random_below(&random, i % 50 == 0 ? 60000 : i % 5 == 0 ? 3000 : 520);
        LOCKED(parcel.p = parcel.domain->malloc(parcel.n));
        fill(parcel.p, parcel.n, parcel.seed);
        put(parcel);
    }
    return NULL;
}

static void *consume(void *argument)
{
    struct parcel parcel;
    for (size_t i = (uintptr_t)argument; get(&parcel); i++) {
        bad += !holds(parcel.p, parcel.n, parcel.seed);
        if (i % 7 == 0) {
            size_t n = parcel.n * 2 + 3;
            LOCKED(parcel.p = parcel.domain->realloc(parcel.p, n));
            bad += !holds(parcel.p, parcel.n, parcel.seed);
            memset(parcel.p, 0x5A, n);
        }
        LOCKED(parcel.domain->free(parcel.p));
    }
    return NULL;
}

static void run_threads(void)
{
    pthread_t threads[PRODUCERS + CONSUMERS];
    for (uintptr_t i = 0; i < PRODUCERS + CONSUMERS; i++)
        pthread_create(&threads[i], NULL, i < PRODUCERS ? produce : consume, (void *)i);
    join_threads(PRODUCERS + CONSUMERS, threads);
}

static void handed_over(void)
{
    STEP("handed over") {
        UNLOCKED(run_threads());
        CHECK(bad == 0);
        FACT("%u blocks handed over, %u bad", delivered, (unsigned)bad);
    }
}

CASES({"handover", handed_over});
