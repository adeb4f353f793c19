/* ways: so a pre
 *
 * OS pages of 4, 16 and 64 KiB, simulated (page_size.h): whole pages are returned, all that hold
 * no block and no other; live blocks stay as they are; and the statistics equal what is in memory.
 * Pages of 64 KiB are whole pools. The memory of a snapshot on the statistics page is returned. */
#include "page_size.h"
#include "resident.h"
#include "stats_page.h"

static struct crowd crowd, others;

static void begin(void)
{
    if (simulated_page() < (size_t)getpagesize())
        skip("the kernel's pages are larger than the simulated ones");
}

/* ---- pages of the arenas ---- */

enum { MOST = 1 << 17 }; /* of 4 KiB */
static bool in_memory[MOST], wanted[MOST];

struct census { size_t resident, wanted, surplus; }; /* in bytes, of whole pages */

/* Marks the pages of the arena at `start` that the crowd's blocks touch. */
static void mark_wanted(const struct crowd *crowd, uintptr_t start, size_t length)
{
    for (size_t i = 0; i < crowd->count; i++) {
        const uintptr_t first = (uintptr_t)crowd->blocks[i] - start;
        if (crowd->blocks[i] && first < length)
            for (size_t at = first >> 12; at <= (first + crowd->sizes[i] - 1) >> 12; at++)
                wanted[at] = true;
    }
}

static bool any(const bool *of, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (of[i])
            return true;
    return false;
}

/* The pages in memory, and those of them that hold no block. */
static struct census count_pages(void)
{
    struct census census = {0};
    const size_t page = simulated_page(), kernels = (size_t)getpagesize();
    static unsigned char seen[MOST];
    for (size_t n = 0; n < 1024; n++) {
        const size_t length = arenas[n].length;
        if (length == 0 || mincore((void *)arenas[n].start, length, seen) != 0)
            continue;
        for (size_t i = 0; i < length >> 12; i++)
            in_memory[i] = seen[(i << 12) / kernels] & 1;
        memset(wanted, 0, sizeof wanted);
        mark_wanted(&crowd, arenas[n].start, length);
        mark_wanted(&others, arenas[n].start, length);
        for (size_t at = 0; at < length; at += page) {
            const bool is_there = any(in_memory + (at >> 12), page >> 12);
            const bool is_wanted = any(wanted + (at >> 12), page >> 12);
            census.resident += is_there ? page : 0;
            census.wanted += is_wanted ? page : 0;
            census.surplus += is_there && !is_wanted ? page : 0;
        }
    }
    return census;
}

/* The statistics, against the kernel; while no thread changes anything. */
static void compare(const char *moment)
{
    read_stats();
    const long long kernel = (long long)count_pages().resident;
    const long long ours = stat_of("resident", "total") - stat_of("resident", "metadata");
    const bool near = llabs(kernel - ours) <= kernel / 50 + (128 << 10);
    if (!near)
        fprintf(stderr, "%s: %lld in memory, we say %lld\n", moment, kernel, ours);
    CHECK(near);
}

/* ---- crowds of all classes ---- */

/* The one leaves whole pools free, the other some pages here and there. */
static void everybody_comes(void)
{
    join_crowd(&crowd, 8 * MIB, 1, 512);
    join_crowd(&crowd, 16 * MIB, 513, MEDIUM_MAX);
    join_crowd(&others, 8 * MIB, 1, 512);
    join_crowd(&others, 16 * MIB, 513, MEDIUM_MAX);
}

static void most_leave(void)
{
    leave_crowd(&crowd, 0);
    leave_crowd(&others, 10);
}

static void nobody_is_harmed(void)
{
    CHECK(crowd_holds(&crowd) && crowd_holds(&others));
    everybody_comes();
    CHECK(crowd_holds(&crowd) && crowd_holds(&others)); /* two that overlap would not */
    compare("all are there again");
    end_crowd(&crowd);
    end_crowd(&others);
}

static void trimmed(void)
{
    begin();
    for (int round = 0; round < 3; round++) {
        everybody_comes();
        compare("all are there");
        most_leave();
        compare("most have left");
        CHECK(obmalloc_trim(0) > 16 * MIB);
        compare("trimmed");
        const struct census census = count_pages();
        if (census.surplus > 0)
            fprintf(stderr, "%zu in memory, %zu of it for nobody\n", census.resident,
                    census.surplus);
        CHECK(census.surplus == 0 && census.resident == census.wanted);
        CHECK(obmalloc_trim(0) == 0);
        nobody_is_harmed();
    }
    obmalloc_trim(0);
    read_stats();
    CHECK(count_pages().resident == 0);
    CHECK(stat_of("resident", "total") == stat_of("resident", "metadata"));
}

/* Blocks in the thread's magazines keep their pages. */
static void by_time(void)
{
    begin();
    everybody_comes();
    most_leave();
    obmalloc_trim(SIZE_MAX); /* empties the magazines, no more */
    CHECK(COMES(count_pages().surplus == 0, PATIENCE));
    CHECK(COMES(threads_now() == 1, PATIENCE));
    compare("some time later");
    nobody_is_harmed();
}

static void at_once(void)
{
    begin();
    everybody_comes();
    most_leave();
    obmalloc_trim(SIZE_MAX);
    const struct census census = count_pages();
    CHECK(census.surplus == 0 && census.resident == census.wanted);
    compare("at once");
    nobody_is_harmed();
}

static void some_come_and_go(void)
{
    join_crowd(&crowd, MIB / 4, 300, 500);
    leave_crowd(&crowd, 0);
}

static void by_ticks(void)
{
    begin();
    everybody_comes();
    most_leave();
    CHECK(COMES_BY(some_come_and_go(), 1000, count_pages().surplus <= 4 * MIB, PATIENCE, 1000));
    compare("some ticks later");
    nobody_is_harmed();
}

/* ---- a snapshot ---- */

static void snapshot(void)
{
    begin();
    char path[PATH_MAX];
    join_crowd(&crowd, 8 * MIB, 1, 512);
    struct stats_page *page = page_open(getpid());
    CHECK(page && page_path(getpid(), path));
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (int round = 0; page && round < 3; round++) {
        CHECK(page_request(page, 1) && page->snapshot_error == 0);
        const size_t size = page->snapshot_bytes;
        struct map_header header = {0};
        CHECK(size > sizeof header);
        CHECK(pread(fd, &header, sizeof header, STATS_PAGE_BYTES) == (ssize_t)sizeof header);
        CHECK(memcmp(header.magic, "OBMALMAP", 8) == 0);
        CHECK(page_request(page, 2) && page->snapshot_bytes == 0);
        char *bytes = malloc(size);
        CHECK(pread(fd, bytes, size, STATS_PAGE_BYTES) == (ssize_t)size);
        size_t zeros = 0;
        while (zeros < size && bytes[zeros] == 0)
            zeros++;
        CHECK(zeros == size);
        free(bytes);
        leave_crowd(&crowd, 10);
    }
    close(fd);
    end_crowd(&crowd);
}

#define ON_PAGES_OF(size)                                                                     \
    {"trimmed-" #size, trimmed, ALL_POOLS "OBMALLOC_DECAY_MS=-1 SIMULATED_PAGE=" #size},      \
    {"by-time-" #size, by_time, ALL_POOLS "OBMALLOC_DECAY_MS=50 SIMULATED_PAGE=" #size},      \
    {"at-once-" #size, at_once, ALL_POOLS "OBMALLOC_DECAY_MS=0 SIMULATED_PAGE=" #size},       \
    {"by-ticks-" #size, by_ticks,                                                             \
     ALL_POOLS "OBMALLOC_DECAY_MS=50 OBMALLOC_BACKGROUND_THREAD=0 SIMULATED_PAGE=" #size},    \
    {"snapshot-" #size, snapshot, "OBMALLOC_STATS_PAGE=1 SIMULATED_PAGE=" #size}

CASES(ON_PAGES_OF(4096), ON_PAGES_OF(16384), ON_PAGES_OF(65536));
