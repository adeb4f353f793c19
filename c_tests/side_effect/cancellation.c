/* ways: so a pre
 *
 * No function of the library is a cancellation point: a thread with a pending cancellation returns
 * from every one of them, whatever files the library reads or writes meanwhile. (tests/abi checks
 * the library's imports: this test is about the functions that those call.) */
#include "harness.h"
#include "settings.h"

extern int _PyObject_DebugMallocStats(FILE *out);

enum { THREADS = 3, ROUNDS = 1, BLOCKS = 1000 };

/* What a thread is in at the moment, and how many were cancelled in it. */
enum place { NOWHERE, MALLOC, CALLOC, REALLOC, FREE, TRIM, BEFORE_FORK, STATS_JSON,
             DEBUG_STATS, SNAPSHOT, PLACES };
static const char *const names[PLACES] = {
    "nowhere", "malloc", "calloc", "realloc", "free", "trim", "before_fork", "stats_json",
    "_PyObject_DebugMallocStats", "snapshot"};
static _Thread_local enum place place;
static char snapshot[] = "/tmp/obmalloc-snapshot-XXXXXX";
static FILE *nowhere; /* not buffered: each call writes */
static atomic_int cancelled[PLACES];

static void cleanup(void *unused)
{
    atomic_fetch_add(&cancelled[place], 1);
}

#define IN(where, call) (place = (where), (call), place = NOWHERE)

static void call_everything(void)
{
    void *blocks[BLOCKS] = {NULL};
    static _Thread_local char text[100];
    for (int round = 0; round < ROUNDS; round++) {
        FOR_EACH_DOMAIN(d) {
            for (int i = 0; i < BLOCKS; i++) {
                size_t n = 1 + (size_t)i * 37 % 8000;
                if (i % 4 == 0)
                    IN(CALLOC, blocks[i] = d->calloc(1, n));
                else
                    IN(MALLOC, blocks[i] = d->malloc(n));
                if (blocks[i])
                    memset(blocks[i], 1, n);
            }
            for (int i = 0; i < BLOCKS; i += 5)
                if (blocks[i]) {
                    void *moved;
                    IN(REALLOC, moved = d->realloc(blocks[i], 100 + (size_t)i));
                    blocks[i] = moved ? moved : blocks[i];
                }
            for (int i = 0; i < BLOCKS; i++)
                IN(FREE, d->free(blocks[i]));
        }
        IN(TRIM, obmalloc_trim(0));
        IN(BEFORE_FORK, obmalloc_before_fork());
        IN(STATS_JSON, obmalloc_stats_json(text, sizeof text));
        IN(DEBUG_STATS, _PyObject_DebugMallocStats(nowhere));
        IN(SNAPSHOT, obmalloc_snapshot(snapshot));
    }
}

/* Waits, without a cancellation point, until its cancellation is pending. */
static void *thread(void *pending)
{
    pthread_cleanup_push(cleanup, NULL);
    while (!atomic_load((atomic_bool *)pending))
        ;
    call_everything();
    pthread_testcancel();
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancel_threads(void)
{
    int fd = mkstemp(snapshot);
    CHECK(fd >= 0 && close(fd) == 0);
    nowhere = fopen("/dev/null", "w");
    CHECK(nowhere && setvbuf(nowhere, NULL, _IONBF, 0) == 0);
    alarm(10); /* a lock of a thread that is gone hangs the next ones */
    for (int i = 0; i < THREADS; i++) {
        pthread_t id;
        atomic_bool pending = false;
        void *result = NULL;
        CHECK(pthread_create(&id, NULL, thread, &pending) == 0);
        CHECK(pthread_cancel(id) == 0);
        atomic_store(&pending, true);
        CHECK(pthread_join(id, &result) == 0);
        CHECK(result == PTHREAD_CANCELED);
    }
    for (int i = NOWHERE + 1; i < PLACES; i++)
        if (cancelled[i] > 0) {
            fprintf(stderr, "%d threads were cancelled in %s\n", cancelled[i], names[i]);
            CHECK(!"no function is a cancellation point");
        }
    CHECK(cancelled[NOWHERE] == THREADS); /* each at its own pthread_testcancel */
    call_everything();
    unlink(snapshot);
}

CASES(WITH_MANY_SETTINGS("cancellation", cancel_threads));
