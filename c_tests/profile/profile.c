/* ways: so a pre tsan
 *
 * The heap profiler in a C program: starting and stopping, profiles in files, errors, threads that
 * start, stop and dump while others allocate, forks, all domains and sizes. The profile's content is
 * tested with interpreters (tests/preload); here the file is gzip, and what it says of the sum of the
 * live bytes is not read. */
#include "harness.h"
#include <errno.h>
#include <sys/stat.h>

static char folder[] = "/tmp/obmalloc-profile-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void make_folder(void)
{
    CHECK(mkdtemp(folder) != NULL);
}

static void remove_folder(void)
{
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(shell(command) == 0);
}

/* The length of a file that gzip can unpack; 0 if it is none. */
static long long gzip_length(const char *path)
{
    char command[200];
    snprintf(command, sizeof command, "gzip -t %s", path);
    struct stat about;
    return shell(command) == 0 && stat(path, &about) == 0 ? about.st_size : 0;
}

static void errors(void)
{
    make_folder();
    STEP("before the start there is no profile") {
        CHECK(obmalloc_profile_interval() == 0);
        CHECK(obmalloc_profile_dump(in_folder("none")) == ENODATA);
        CHECK(access(in_folder("none"), F_OK) != 0);
        CHECK(obmalloc_profile_stop() == 0);
    }
    STEP("a start counts once") {
        CHECK(obmalloc_profile_start(0) == 0);
        CHECK(obmalloc_profile_interval() == 512 * 1024);
        CHECK(obmalloc_profile_start(1) == EALREADY);
        CHECK(obmalloc_profile_interval() == 512 * 1024);
    }
    STEP("a path that cannot be written is an error") {
        CHECK(obmalloc_profile_dump(NULL) == EFAULT);
        CHECK(obmalloc_profile_dump("/nowhere/at/all") == ENOENT);
        CHECK(obmalloc_profile_dump(folder) == EISDIR);
    }
    STEP("after the stop the profile can be written") {
        CHECK(obmalloc_profile_stop() == 0);
        CHECK(obmalloc_profile_interval() == 0);
        CHECK(obmalloc_profile_dump(in_folder("stopped")) == 0);
        CHECK(gzip_length(in_folder("stopped")) > 0);
    }
    STEP("any interval is valid") {
        CHECK(obmalloc_profile_start(SIZE_MAX) == 0);
        for (int i = 0; i < 1000; i++)
            obj.free(obj.malloc(100));
        CHECK(obmalloc_profile_stop() == 0);
    }
    remove_folder();
}

/* Allocates, grows, shrinks and frees blocks of all sizes in a domain. */
static void exercise(const struct domain *d, uint64_t random, int steps)
{
    enum { SLOTS = 300 };
    struct { unsigned char *p; size_t n; } slots[SLOTS] = {{NULL, 0}};
    for (int step = 0; step < steps; step++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const size_t i = (random >> 33) % SLOTS, wide = (random >> 13) % 7 == 0 ? 60000 : 700;
        const size_t n = (random >> 43) % wide;
        unsigned char *p = slots[i].p;
        if (p && slots[i].n)
            CHECK(p[0] == (unsigned char)i && p[slots[i].n - 1] == (unsigned char)i);
        if (p && (random & 1)) {
            d->free(p);
            slots[i].p = NULL;
            continue;
        }
        p = d->realloc(p, n);
        CHECK(p != NULL);
        memset(p, (int)i, n);
        slots[i].p = p;
        slots[i].n = n;
    }
    for (int i = 0; i < SLOTS; i++)
        d->free(slots[i].p);
}

static void domains_and_sizes(void)
{
    make_folder();
    FOR_EACH_DOMAIN(d) {
        const size_t intervals[] = {1, 300, 100000};
        for (int i = 0; i < 3; i++) {
            CHECK(obmalloc_profile_start(intervals[i]) == 0);
            exercise(d, 1 + i, 20000);
            CHECK(obmalloc_profile_dump(in_folder(d->name)) == 0);
            CHECK(gzip_length(in_folder(d->name)) > 0);
            CHECK(obmalloc_profile_stop() == 0);
            exercise(d, 5 + i, 5000);
        }
        FACT("%s: contents were kept", d->name);
    }
    remove_folder();
}

static atomic_bool over;

static void *work(void *argument)
{
    THREAD_BEGIN;
    for (uint64_t seed = (uintptr_t)argument; !over; seed += 100)
        LOCKED(exercise(domains[seed % 3], seed, 3000));
    THREAD_END;
    return NULL;
}

static void child(void *argument)
{
    (void)argument;
    exercise(&obj, 77, 3000);
    CHECK(obmalloc_profile_dump(in_folder("child")) == 0);
}

static void threads_and_forks(void)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    make_folder();
    start_threads(THREADS, threads, work);
    for (int i = 0; i < 40; i++) {
        CHECK(obmalloc_profile_start(i % 2 ? 1 : 2000) == 0);
        CHECK(obmalloc_profile_dump(in_folder("parent")) == 0);
        exercise(&mem, 9, 500);
        if (i % 4 == 0)
            CHECK(in_child(child, NULL) == 0);
        CHECK(obmalloc_profile_stop() == 0);
    }
    over = true;
    join_threads(THREADS, threads);
    CHECK(gzip_length(in_folder("parent")) > 0);
    CHECK(gzip_length(in_folder("child")) > 0);
    FACT("threads and children ended");
    remove_folder();
}

CASES({"errors", errors},
      {"domains-and-sizes", domains_and_sizes, .settings = "OBMALLOC_PROFILE_MEMORY=1M"},
      {"threads-and-forks", threads_and_forks, .settings = "OBMALLOC_PROFILE_MEMORY=1M"});
