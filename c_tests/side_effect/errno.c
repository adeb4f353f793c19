/* ways: so a pre
 *
 * A call that succeeds leaves errno alone (POSIX 2024 requires that of free, and C code relies on
 * it for malloc too): also where the kernel refuses a system call that the library makes on the
 * side. */
#include "harness.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { BLOCKS = 30000, ROUNDS = 2, MARK = 77, NOBODY = 65534 };

static unsigned changes, codes[200];

/* One call, which has succeeded if `condition` holds afterwards. */
#define KEEPS(call, condition)                              \
    do {                                                    \
        errno = MARK;                                       \
        call;                                               \
        if (errno != MARK && (condition)) {                 \
            changes++;                                      \
            codes[errno >= 0 && errno < 200 ? errno : 0]++; \
        }                                                   \
    } while (0)

static void calls(const struct domain *d)
{
    static void *blocks[BLOCKS];
    static char text[9000];
    for (int i = 0; i < BLOCKS; i++) {
        size_t n = 16 + (size_t)i % 480;
        if (i % 3 == 0)
            KEEPS(blocks[i] = d->calloc(n, 1), blocks[i]);
        else
            KEEPS(blocks[i] = d->malloc(n), blocks[i]);
        if (blocks[i])
            *(char *)blocks[i] = 1;
    }
    for (int i = 0; i < BLOCKS; i += 7) {
        void *moved;
        KEEPS(moved = d->realloc(blocks[i], 100 + (size_t)i % 900), moved);
        blocks[i] = moved ? moved : blocks[i];
    }
    KEEPS(obmalloc_stats_json(text, sizeof text), true);
    for (int i = 0; i < BLOCKS; i++)
        KEEPS(d->free(blocks[(i * 7L) % BLOCKS]), true);
    KEEPS(obmalloc_before_fork(), true);
    KEEPS(obmalloc_trim(0), true);
}

static void all_calls(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        calls(round % 2 == 0 ? &obj : &mem);
        usleep(20000); /* a helper thread's turn */
    }
    calls(&raw);
    for (int code = 0; code < 200; code++)
        if (codes[code] > 0)
            fprintf(stderr, "%u calls have left %d (%s)\n", codes[code], code, strerror(code));
    CHECK(changes == 0);
}

static bool limit(int resource, rlim_t most)
{
    struct rlimit limits = {most, most};
    return setrlimit(resource, &limits) == 0;
}

/* madvise refuses pages that are locked. */
static void locked(void)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        skip("memory cannot be locked here");
    all_calls();
}

static void without_threads(void)
{
    if (geteuid() == 0)
        CHECK(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    CHECK(limit(RLIMIT_NPROC, 1));
    all_calls();
}

static void without_descriptors(void)
{
    CHECK(limit(RLIMIT_NOFILE, 3));
    all_calls();
}

static void *nothing(void *unused)
{
    return unused;
}

/* From then on the kernel's files are read by a thread of their own. */
static void with_threads(void (*calls)(void))
{
    pthread_t id;
    CHECK(pthread_create(&id, NULL, nothing, NULL) == 0 && pthread_join(id, NULL) == 0);
    calls();
}

/* There is room for a large block only when the empty arenas are unmapped for it. */
static void second_try(void)
{
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = obj.malloc(512);
    for (int i = 0; i < BLOCKS; i++)
        obj.free(blocks[i]);
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm && fscanf(statm, "%lu", &pages) == 1);
    fclose(statm);
    struct rlimit limits = {pages * (rlim_t)sysconf(_SC_PAGESIZE), RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_AS, &limits) == 0);
    void *block;
    KEEPS(block = obj.malloc(8 << 20), true);
    limits.rlim_cur = RLIM_INFINITY;
    CHECK(setrlimit(RLIMIT_AS, &limits) == 0);
    CHECK(block != NULL && changes == 0);
    obj.free(block);
}

static void all_calls_beside_a_thread(void) { with_threads(all_calls); }
static void no_threads_any_more(void) { with_threads(without_threads); }

CASES({"errno-no-limits", all_calls},
      {"errno-locked-memory", locked},
      {"errno-locked-memory-returned-at-once", locked, "OBMALLOC_DECAY_MS=0"},
      {"errno-soft-limit", all_calls, "OBMALLOC_SOFT_LIMIT=60M"},
      {"errno-soft-limit-threads", all_calls_beside_a_thread, "OBMALLOC_SOFT_LIMIT=60M"},
      {"errno-hard-limit-threads", all_calls_beside_a_thread, "OBMALLOC_HARD_LIMIT=1G"},
      {"errno-no-threads-any-more", no_threads_any_more, "OBMALLOC_SOFT_LIMIT=60M"},
      {"errno-no-threads", without_threads},
      {"errno-no-descriptors", without_descriptors, "OBMALLOC_SOFT_LIMIT=60M"},
      {"errno-no-descriptors-for-the-stats-page", without_descriptors, "OBMALLOC_STATS_PAGE=1"},
      {"errno-second-try", second_try, "OBMALLOC_DECAY_MS=-1"});
