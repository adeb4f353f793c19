/* ways: so a pre
 *
 * obmalloc_trim: free pages are returned, as many bytes as it returns and as the kernel counts;
 * live blocks stay as they are; returned pages are used again; and the statistics equal what is in
 * memory at each moment. Nothing is returned by time here. */
#include "resident.h"

static struct crowd crowd;

/* ---- the ledger ---- */

/* Resident bytes of arenas: of the mappings without huge pages ("nh"), which only arenas are; -1
 * where the kernel does not show them. */
static long long kernel_says(void)
{
    char line[512];
    long long sum = 0, rss = 0;
    bool any = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file && fgets(line, sizeof line, file)) {
        sscanf(line, "Rss: %lld kB", &rss);
        if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " nh")) {
            any = true;
            sum += rss << 10;
        }
    }
    if (file)
        fclose(file);
    return any ? sum : -1;
}

static void compare(const char *moment)
{
    read_stats();
    const long long kernel = kernel_says();
    const long long ours = stat_of("resident", "total") - stat_of("resident", "metadata");
    if (kernel < 0) {
        fprintf(stderr, "%s: the kernel does not say what arenas have in memory\n", moment);
        return;
    }
    const long long off = llabs(kernel - ours), allowed = kernel / 50 + (64 << 10);
    if (off > allowed)
        fprintf(stderr, "%s: %lld in memory, we say %lld\n", moment, kernel, ours);
    CHECK(off <= allowed);
    CHECK(stat_of("resident", "live") + stat_of("resident", "in_magazines") +
              stat_of("resident", "free_in_pools") + stat_of("resident", "empty_pools") ==
          ours);
}

static size_t free_resident(void)
{
    read_stats();
    return (size_t)(stat_of("resident", "free_in_pools") + stat_of("resident", "empty_pools"));
}

/* ---- one thread ---- */

/* Blocks of all classes, as many bytes of small ones as of large ones. */
static void everybody_comes(void)
{
    join_crowd(&crowd, 12 * MIB, 1, 64);
    join_crowd(&crowd, 16 * MIB, 65, 512);
    join_crowd(&crowd, 16 * MIB, 513, 4096);
    join_crowd(&crowd, 16 * MIB, 4097, MEDIUM_MAX);
}

/* Trims, and checks that the process gets smaller by the bytes returned. */
static size_t trim_and_look(size_t keep)
{
    read_stats();
    const long long total = stat_of("resident", "returned_total");
    const size_t before = resident(), returned = obmalloc_trim(keep), after = resident();
    read_stats();
    CHECK(stat_of("resident", "returned_total") - total == (long long)returned);
    const size_t slack = returned / 20 + 3 * MIB;
    const bool fell = before - after + slack >= returned && before - after <= returned + slack;
    if (!fell)
        fprintf(stderr, "%zu returned, %zu before, %zu after\n", returned, before, after);
    CHECK(fell);
    return returned;
}

static void nothing_allocated(void)
{
    CHECK(obmalloc_trim(0) == 0);
    CHECK(obmalloc_trim(SIZE_MAX) == 0);
    obj.free(obj.malloc(1));
    CHECK(obmalloc_trim(SIZE_MAX) == 0);
    CHECK(obmalloc_trim(0) <= 1 << 16);
    CHECK(obmalloc_trim(0) == 0);
}

static void most_is_freed(void)
{
    everybody_comes();
    compare("all are there");
    CHECK(obmalloc_trim(0) <= 1 << 20);
    compare("trimmed while all are there");
    const size_t peak = crowd.bytes;
    leave_crowd(&crowd, 10);
    compare("one of a hundred is left");
    CHECK(trim_and_look(0) > peak / 2);
    compare("trimmed");
    CHECK(crowd_holds(&crowd));
    CHECK(obmalloc_trim(0) <= 1 << 16);
}

/* New blocks are allocated between the survivors. */
static void pages_serve_again(void)
{
    read_stats();
    const long long arenas = stat_of("arenas", "mapped_total");
    everybody_comes();
    compare("all are there again");
    CHECK(crowd_holds(&crowd)); /* two that overlap would not */
    CHECK(stat_of("arenas", "mapped_total") <= arenas + 8);
}

/* Whole arenas are trimmed, so up to one arena more than necessary is returned. */
static void some_is_kept(void)
{
    leave_crowd(&crowd, 1);
    obmalloc_trim(SIZE_MAX); /* empties this thread's magazines, no more */
    const size_t all = free_resident();
    CHECK(all > crowd.bytes && obmalloc_trim(all) == 0);
    for (size_t keep = all / 16 * 15; keep > all / 4; keep = keep / 3 * 2) {
        CHECK(trim_and_look(keep) > 0);
        const size_t left = free_resident();
        CHECK(left <= keep && left + 2 * MIB >= keep);
        compare("some is kept");
    }
}

static void all_is_freed(void)
{
    end_crowd(&crowd);
    obmalloc_trim(0);
    read_stats();
    CHECK(total_of_classes("blocks_live") == 0);
    CHECK(stat_of("resident", "total") - stat_of("resident", "metadata") == 0);
    CHECK(kernel_says() <= 64 << 10);
    const size_t before = resident();
    everybody_comes();
    end_crowd(&crowd);
    compare("all are gone");
    obmalloc_trim(SIZE_MAX); /* whole arenas may go already here */
    trim_and_look(0);
    compare("all are gone, and trimmed");
    CHECK(resident() <= before + 4 * MIB);
}

/* Returned pages are zero when used again; calloc must clear the others. */
static void calloc_is_zero(void)
{
    enum { N = 20000 };
    static unsigned char *p[N];
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < N; i++)
            memset(p[i] = obj.malloc(i % 3000), 0xFF, i % 3000);
        for (size_t i = 0; i < N; i++)
            if (i % 50 != (size_t)round)
                obj.free(p[i]);
        obmalloc_trim(round % 2 ? 8 * MIB : 0);
        size_t bad = 0;
        for (size_t i = 0; i < N; i++) {
            if (i % 50 == (size_t)round)
                obj.free(p[i]);
            p[i] = obj.calloc(1, i % 3000);
            for (size_t at = 0; at < i % 3000; at++)
                bad += p[i][at] != 0;
        }
        CHECK(bad == 0);
        for (size_t i = 0; i < N; i++)
            obj.free(p[i]);
    }
}

/* ---- several threads ---- */

enum { WORKERS = 4, SLOTS = 3000, STEPS = 120000 };

static atomic_int working;

/* Allocates and frees in waves, so that whole pages are free in between. */
static void *worker(void *argument)
{
    struct { void *p; size_t n; } *slots = calloc(SLOTS, sizeof *slots);
    uint64_t random = 7 + (uintptr_t)argument;
    size_t bad = 0;
    for (size_t step = 0; step < STEPS; step++) {
        const size_t i = random_below(&random, SLOTS);
        bad += slots[i].p && !holds(slots[i].p, slots[i].n, i);
        obj.free(slots[i].p);
        slots[i].p = NULL;
        if (step / 20000 % 2 == 0) {
            slots[i].n = random_below(&random, step % 64 ? 700 : MEDIUM_MAX);
            fill(slots[i].p = obj.malloc(slots[i].n), slots[i].n, i);
        }
    }
    for (size_t i = 0; i < SLOTS; i++) {
        bad += slots[i].p && !holds(slots[i].p, slots[i].n, i);
        obj.free(slots[i].p);
    }
    CHECK(bad == 0);
    free(slots);
    working--;
    return NULL;
}

static void trim_beside_threads(void)
{
    pthread_t threads[WORKERS];
    size_t returned = 0;
    working = WORKERS;
    start_threads(WORKERS, threads, worker);
    for (size_t round = 0; working > 0; round++) {
        returned += obmalloc_trim(round % 3 ? 0 : MIB);
        if (round % 10 == 0)
            usleep(1000);
    }
    join_threads(WORKERS, threads);
    CHECK(returned > MIB);
    compare("threads have ended");
    obmalloc_trim(0);
    read_stats();
    CHECK(total_of_classes("blocks_live") == 0);
    CHECK(stat_of("resident", "total") == stat_of("resident", "metadata"));
    compare("threads have ended, and trimmed");
}

static void trim(void)
{
    alarm(55);
    STEP("nothing allocated") nothing_allocated();
    STEP("most is freed") most_is_freed();
    STEP("pages serve again") pages_serve_again();
    STEP("some is kept") some_is_kept();
    STEP("all is freed") all_is_freed();
    STEP("calloc is zero") calloc_is_zero();
    STEP("beside threads") trim_beside_threads();
}

CASES({"trim", trim, ALL_POOLS "OBMALLOC_DECAY_MS=-1"});
