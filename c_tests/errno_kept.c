/* ways: so a pre
 *
 * A call that succeeds leaves errno alone (POSIX 2024 says so of free, and C code relies on
 * malloc doing so too): where the kernel refuses what the library does on the side, too. */
#include "settings.h"
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

static void all_calls(void *unused)
{
    (void)unused;
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
static void locked(void *unused)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        fprintf(stderr, "memory cannot be locked here: nothing is tested\n");
    else
        all_calls(unused);
}

static void without_threads(void *unused)
{
    if (geteuid() == 0)
        CHECK(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    CHECK(limit(RLIMIT_NPROC, 1));
    all_calls(unused);
}

static void without_descriptors(void *unused)
{
    CHECK(limit(RLIMIT_NOFILE, 3));
    all_calls(unused);
}

static void *nothing(void *unused)
{
    return unused;
}

/* From then on the kernel's files are read by a thread of their own. */
static void with_threads(void *body)
{
    pthread_t id;
    CHECK(pthread_create(&id, NULL, nothing, NULL) == 0 && pthread_join(id, NULL) == 0);
    void (*calls)(void *) = *(void (**)(void *))body;
    calls(NULL);
}

/* There is room for a large block only when the empty arenas are given up for it. */
static void second_try(void *unused)
{
    (void)unused;
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

TEST_MAIN
{
    static const struct setting none = {NULL, NULL}, at_once = {"OBMALLOC_DECAY_MS", "0"},
                                soft = {"OBMALLOC_LIMIT", "60M"},
                                hard = {"OBMALLOC_LIMIT_HARD", "1G"},
                                for_ever = {"OBMALLOC_DECAY_MS", "-1"},
                                page = {"OBMALLOC_LIVE", "1"};
    static void (*const everything)(void *) = all_calls;
    static void (*const nobody)(void *) = without_threads;
    static const struct {
        const char *name;
        const struct setting *setting;
        void (*body)(void *);
        const void *argument;
    } cases[] = {
        {"no limits", &none, all_calls, NULL},
        {"locked memory", &none, locked, NULL},
        {"locked memory", &at_once, locked, NULL},
        {"a soft limit", &soft, all_calls, NULL},
        {"a soft limit, threads", &soft, with_threads, &everything},
        {"a hard limit, threads", &hard, with_threads, &everything},
        {"no threads any more", &soft, with_threads, &nobody},
        {"no threads", &none, without_threads, NULL},
        {"no descriptors", &soft, without_descriptors, NULL},
        {"no descriptors", &page, without_descriptors, NULL},
        {"a second try", &for_ever, second_try, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FACT("%s", cases[i].name);
        under(cases[i].setting, cases[i].body, (void *)cases[i].argument);
    }
}
