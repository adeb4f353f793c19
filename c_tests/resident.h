/* What is in memory, as the kernel and the library say; who is in the process;
 * and crowds: many blocks of many sizes, of which some stay. */
#ifndef RESIDENT_H
#define RESIDENT_H

#include "stats.h"
#include <dirent.h>
#include <fcntl.h>
#include <time.h>

#define MIB ((size_t)1 << 20)

/* The beginning of a small file, as text; "" if it cannot be read. */
static MAYBE_UNUSED const char *text_of(const char *path)
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
static MAYBE_UNUSED size_t resident(void)
{
    const char *second = strchr(text_of("/proc/self/statm"), ' ');
    CHECK(second != NULL);
    return second ? strtoul(second, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

/* Bytes of memory that the library has and in which nothing lies, as it says. */
static MAYBE_UNUSED long long free_and_resident(void)
{
    read_stats();
    return stat_of("resident", "free_in_pools") + stat_of("resident", "empty_pools");
}

/* ---- time ---- */

static MAYBE_UNUSED double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Whether the condition comes true within so many seconds. */
#define COMES(condition, limit)                                   \
    ({                                                            \
        const double until_ = seconds() + (limit);                \
        bool came_;                                               \
        while (!(came_ = (condition)) && seconds() < until_)      \
            usleep(300);                                          \
        came_;                                                    \
    })

/* The same for what the program's own calls bring about: makes them and pauses, again
 * and again, within so many seconds, but on a busy machine so many times at the least. */
#define COMES_BY(call, pause, condition, limit, times)            \
    ({                                                            \
        const double until_ = seconds() + (limit);                \
        int times_ = (times);                                     \
        bool came_;                                               \
        while (!(came_ = (condition)) &&                          \
               (times_-- > 0 || seconds() < until_)) {            \
            call;                                                 \
            usleep(pause);                                        \
        }                                                         \
        came_;                                                    \
    })

/* ---- threads, as the kernel sees them ---- */

/* Their number; in *helper that of the one called "obmalloc", or 0. */
static int count_threads(int *helper)
{
    int n = 0;
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

static MAYBE_UNUSED int threads_now(void)
{
    int helper;
    return count_threads(&helper);
}

static MAYBE_UNUSED int helper_now(void)
{
    int helper;
    count_threads(&helper);
    return helper;
}

/* ---- parts that run in a process of their own ---- */

struct part {
    const char *name;
    void (*body)(void);
    const char *decay, *thread; /* settings, NULL: none. They are read once. */
};

/* Runs a part as a new program: this one again. */
static void run_part(const struct part *part, size_t number)
{
    int status = -1;
    char text[32];
    snprintf(text, sizeof text, "%zu", number);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("TEST_PART", text, 1);
        setenv("OBMALLOC_SMALL_MAX", "32768", 1);
        if (part->decay)
            setenv("OBMALLOC_DECAY_MS", part->decay, 1);
        if (part->thread)
            setenv("OBMALLOC_THREAD", part->thread, 1);
        execl("/proc/self/exe", part->name, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, &status, 0); /* it has an alarm */
    if (status != 0)
        fprintf(stderr, "%s: status %#x\n", part->name, status);
    CHECK(pid > 0 && status == 0);
}

static MAYBE_UNUSED void run_parts(const struct part *parts, size_t n)
{
    const char *number = getenv("TEST_PART");
    alarm(number ? 40 : 0);
    if (number)
        parts[atoi(number)].body();
    else
        for (size_t i = 0; i < n; i++)
            CHECK_BODY(parts[i].name) run_part(&parts[i], i);
}

/* ---- crowds ---- */

enum { CROWD = 1 << 20 };

struct crowd {
    size_t count, bytes;
    void *blocks[CROWD]; /* NULL: freed */
    unsigned short sizes[CROWD];
};

/* Adds blocks of `from` to `to` bytes, each written to its end. */
static MAYBE_UNUSED void join_crowd(struct crowd *crowd, size_t bytes, size_t from, size_t to)
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
static MAYBE_UNUSED void leave_crowd(struct crowd *crowd, size_t per_mille)
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
static MAYBE_UNUSED bool crowd_holds(const struct crowd *crowd)
{
    for (size_t i = 0; i < crowd->count; i++)
        if (crowd->blocks[i] && !holds(crowd->blocks[i], crowd->sizes[i], i))
            return false;
    return true;
}

/* Frees all that are left. */
static MAYBE_UNUSED void end_crowd(struct crowd *crowd)
{
    for (size_t i = 0; i < crowd->count; i++)
        obj.free(crowd->blocks[i]);
    crowd->count = crowd->bytes = 0;
}

#endif
