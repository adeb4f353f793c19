/* Resident memory, by the kernel and by the library; the threads of the process; and crowds: many
 * blocks of many sizes, some of which stay. */
#ifndef RESIDENT_H
#define RESIDENT_H

#include "stats.h"
#include <dirent.h>
#include <fcntl.h>

#define MIB ((size_t)1 << 20)
enum { PATIENCE = 20 }; /* seconds, for events that take less than one */
#define ALL_POOLS "OBMALLOC_POOL_MAX=32768 " /* pools for medium sizes from the start */

/* The beginning of a small file, as text; "" if it cannot be read. */
static inline const char *text_of(const char *path)
{
    static _Thread_local char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    if (fd >= 0)
        close(fd);
    return text;
}

/* Bytes of the process that are in memory. (The kernel counts on each processor
 * and adds up now and then: this is right to about a MiB.) */
static inline size_t resident(void)
{
    const char *second = strchr(text_of("/proc/self/statm"), ' ');
    CHECK(second != NULL);
    return second ? strtoul(second, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

/* Bytes of resident memory that hold no block, by the library's statistics. */
static inline long long free_and_resident(void)
{
    read_stats();
    return stat_of("resident", "free_in_pools") + stat_of("resident", "empty_pools");
}

/* ---- threads, as the kernel sees them ---- */

/* Their number; in *helper that of the one called "obmalloc", or 0. An emulator has one thread of
 * its own, which does not count. */
static inline int count_threads(int *helper)
{
    int n = getenv("TEST_RUNNER") ? -1 : 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    *helper = 0;
    for (struct dirent *each; tasks && (each = readdir(tasks));) {
        char path[300];
        if (each->d_name[0] == '.')
            continue;
        n++;
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", each->d_name);
        if (strcmp(text_of(path), "obmalloc\n") == 0)
            *helper = atoi(each->d_name);
    }
    if (tasks)
        closedir(tasks);
    return n;
}

static inline int threads_now(void)
{
    int helper;
    return count_threads(&helper);
}

static inline int helper_now(void)
{
    int helper;
    count_threads(&helper);
    return helper;
}

/* ---- crowds ---- */

enum { CROWD = 1 << 20 };

struct crowd {
    size_t count, bytes;
    void *blocks[CROWD]; /* NULL: freed */
    unsigned short sizes[CROWD];
};

/* Adds blocks of `from` to `to` bytes, each written to its end. */
static inline void join_crowd(struct crowd *crowd, size_t bytes, size_t from, size_t to)
{
    uint64_t random = 88172645463325252u + crowd->count;
    const size_t end = crowd->bytes + bytes;
    size_t bad = 0;
    while (crowd->bytes < end && crowd->count < CROWD) {
        const size_t n = from + random_below(&random, to - from + 1);
        void *p = obj.malloc(n);
        if (p == NULL) {
            bad++;
            break;
        }
        fill(p, n, crowd->count);
        crowd->blocks[crowd->count] = p;
        crowd->sizes[crowd->count++] = (unsigned short)n;
        crowd->bytes += n;
    }
    CHECK(bad == 0);
}

/* Frees all but `per_mille` of a thousand, at random, in random order. */
static inline void leave_crowd(struct crowd *crowd, size_t per_mille)
{
    static unsigned order[CROWD];
    uint64_t random = 362436069;
    for (unsigned i = 0; i < crowd->count; i++) {
        const size_t j = random_below(&random, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (size_t i = 0; i < crowd->count; i++) {
        void **block = &crowd->blocks[order[i]];
        if (*block && random_below(&random, 1000) >= per_mille) {
            obj.free(*block);
            *block = NULL;
            crowd->bytes -= crowd->sizes[order[i]];
        }
    }
}

/* Whether all that are left still hold what was written to them. */
static inline bool crowd_holds(const struct crowd *crowd)
{
    for (size_t i = 0; i < crowd->count; i++)
        if (crowd->blocks[i] && !holds(crowd->blocks[i], crowd->sizes[i], i))
            return false;
    return true;
}

/* Frees all that are left. */
static inline void end_crowd(struct crowd *crowd)
{
    for (size_t i = 0; i < crowd->count; i++)
        obj.free(crowd->blocks[i]);
    crowd->count = crowd->bytes = 0;
}

#endif
