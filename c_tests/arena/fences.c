/* ways: so a pre
 *
 * A program that writes beyond the end of a block, downwards or upwards, damages blocks and then
 * faults: none of the library's metadata is in the memory that can be written without a gap. The
 * layout differs from run to run, so this runs in many processes, each a program started anew.
 * Each reads the mappings and their owners from a snapshot, overwrites its arenas from a block to
 * one end, and goes on allocating. */
#include "stats_page.h"

enum { PROCESSES = 24, MOST = 30000, LINES = 4000 };

struct range {
    uintptr_t start, end;
    bool writable;
};

static struct range lines[LINES];
static size_t line_count;

static void read_maps(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    char line[5000], access[8];
    line_count = 0;
    while (line_count < LINES && fgets(line, sizeof line, file)) {
        unsigned long start, end;
        CHECK(sscanf(line, "%lx-%lx %7s", &start, &end, access) == 3);
        lines[line_count++] = (struct range){start, end, access[1] == 'w'};
    }
    fclose(file);
}

/* All that can be written around an address without a gap. */
static struct range writable_around(uintptr_t address)
{
    struct range run = {0, 0, true};
    for (size_t i = 0; i < line_count; i++) {
        bool joins = lines[i].writable && run.end == lines[i].start && run.end != 0;
        if (!joins && run.start <= address && address < run.end)
            break;
        if (!lines[i].writable)
            continue;
        if (!joins)
            run.start = lines[i].start;
        run.end = lines[i].end;
    }
    CHECK(run.start <= address && address < run.end);
    return run;
}

/* ---- the snapshot ---- */

static unsigned char *snapshot;
static const struct map_header *header;

static void take_snapshot(void)
{
    static const char template[] = "/tmp/obmalloc-fences-XXXXXX";
    char folder[sizeof template], path[sizeof template + 8];
    memcpy(folder, template, sizeof template);
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/map", folder);
    CHECK(obmalloc_snapshot(path) == 0);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    fseek(file, 0, SEEK_END);
    size_t size = ftell(file);
    rewind(file);
    snapshot = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(fread(snapshot, 1, size, file) == size);
    fclose(file);
    unlink(path);
    rmdir(folder);
    header = (const struct map_header *)snapshot;
    CHECK(memcmp(header->magic, "OBMALMAP", 8) == 0);
}

static const struct map_arena *arenas(void)
{
    return (const struct map_arena *)(snapshot + header->header_bytes);
}

static const struct map_mapping *mappings(void)
{
    return (const struct map_mapping *)(snapshot + header->header_bytes
                                        + header->arenas * sizeof(struct map_arena)
                                        + header->pools * sizeof(struct map_pool)
                                        + header->pages * sizeof(struct map_page));
}

static bool overlap(struct range run, uint64_t address, uint64_t bytes)
{
    return address < run.end && run.start < address + bytes;
}

/* ---- one process ---- */

static void *use_a_thread(void *unused)
{
    obj.free(obj.malloc(100)); /* it has magazines now */
    return NULL;
}

/* Whether the shared statistics page is between two pages that cannot be written. */
static void check_live_page(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    char line[5000];
    unsigned found = 0;
    while (fgets(line, sizeof line, file)) {
        unsigned long start, end;
        if (!strstr(line, "obmalloc-live") || sscanf(line, "%lx-%lx", &start, &end) != 2)
            continue;
        struct range run = writable_around(start);
        CHECK(run.start == start && run.end == end);
        found++;
    }
    fclose(file);
    CHECK(found > 0);
}

static void one_process(int number)
{
    static unsigned char *blocks[MOST];
    const int counts[] = {1, 700, MOST}, count = counts[number % 3];
    bool down = number % 2;
    for (int i = 0; i < count; i++)
        blocks[i] = obj.malloc(i % 5 ? 64 : 200);
    pthread_t threads[3];
    for (int i = 0; i < number % 4; i++)
        CHECK(pthread_create(&threads[i % 3], NULL, use_a_thread, NULL) == 0
              && pthread_join(threads[i % 3], NULL) == 0);
    take_snapshot();
    read_maps();
    uintptr_t middle = (uintptr_t)blocks[count / 2];
    CHECK(header->arenas > 0 && header->mappings > 2);
    struct range owned = {0, 0, true};
    for (size_t a = 0; a < header->arenas; a++) {
        struct range run = writable_around(arenas()[a].address);
        for (size_t m = 0; m < header->mappings; m++)
            CHECK(!overlap(run, mappings()[m].address, mappings()[m].bytes));
        uint64_t start = arenas()[a].address, end = start + arenas()[a].bytes;
        if (owned.end == start && owned.end != 0)
            owned.end = end;
        else if (owned.end <= middle)
            owned = (struct range){start, end, true};
    }
    if (number % 6 == 0)
        check_live_page();
    /* From the block on, as a runaway program writes, up to the end of what blocks may use. */
    CHECK(owned.start <= middle && middle < owned.end);
    volatile unsigned char *p = (volatile unsigned char *)middle;
    if (down)
        while ((uintptr_t)p > owned.start)
            *--p = 0x41;
    else
        while ((uintptr_t)p < owned.end)
            *p++ = 0x41;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < count; i++)
            obj.free(blocks[i]);
        for (int i = 0; i < count; i++)
            CHECK((blocks[i] = obj.malloc(i % 2 ? 64 : 200)) != NULL);
        for (int i = 0; i < count; i++)
            fill(blocks[i], 64, i);
    }
    unsigned bad = 0;
    for (int i = 0; i < count; i++)
        bad += !holds(blocks[i], 64, i);
    CHECK(bad == 0);
}

static void fences(void)
{
    char number[12];
    if (getenv("TEST_PROCESS"))
        return one_process(atoi(getenv("TEST_PROCESS")));
    for (int i = 0; i < PROCESSES; i++) {
        snprintf(number, sizeof number, "%d", i);
        if (i % 6 == 0)
            setenv("OBMALLOC_STATS_PAGE", "1", 1);
        else
            unsetenv("OBMALLOC_STATS_PAGE");
        pid_t pid = fork();
        if (pid == 0) {
            setenv("TEST_PROCESS", number, 1);
            run_this_program((char *[]){"arena", "fences", NULL});
            _exit(99);
        }
        CHECK(pid > 0 && status_of(pid) == 0);
    }
}

CASES({"fences", fences});
