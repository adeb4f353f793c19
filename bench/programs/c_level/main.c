/* Allocation as C programs do it: the program of the benchmark `c_level`.
 *
 *     c_level                 the rows, as JSON: name, full rounds, threads
 *     c_level NAME ROUNDS     one row: nanoseconds per operation by the clock and of
 *                             the processors, operations, the check value, peak RSS
 *                             in KiB, the file that the allocator comes from
 *
 * Exit status 1: a block did not hold what was written to it, or an allocation failed. */
#define _GNU_SOURCE
#include "harness.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define TEXT_OF(name) #name
#define TEXT(macro) TEXT_OF(macro)

uint16_t python_sizes[SIZES];

/* Bytes, and how many of a thousand requests. */
static const uint16_t shares[][2] = {
    {16, 10},
    {24, 40}, {28, 80}, {32, 120},
    {40, 50}, {48, 90}, {56, 240}, {64, 230},
    {72, 70}, {80, 15}, {104, 16}, {128, 10}, {184, 10}, {256, 6}, {400, 3}, {512, 1},
    {1024, 6}, {4096, 3},
};

static const struct row *const groups[] = {batch_rows, live_rows, resize_rows, thread_rows};
enum { GROUPS = sizeof groups / sizeof *groups };

static double began[2], took[2];     /* nanoseconds by the clock, of the processors */
static size_t operations;
static struct tally all;

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

void begin(void)
{
    began[1] = now(CLOCK_PROCESS_CPUTIME_ID);
    began[0] = now(CLOCK_MONOTONIC);
}

void end(size_t count)
{
    took[0] = now(CLOCK_MONOTONIC) - began[0];
    took[1] = now(CLOCK_PROCESS_CPUTIME_ID) - began[1];
    operations = count;
}

void give_up(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

void answer(struct tally tally)
{
    all.written += tally.written;
    all.found += tally.found;
}

static void spread_sizes(void)
{
    size_t filled = 0, share = 0;
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        share += shares[i][1];
        while (filled < share * SIZES / 1000)
            python_sizes[filled++] = shares[i][0];
    }
}

/* The file that a function comes from. */
static const char *home(const char *function)
{
    Dl_info about;
    void *address = dlsym(RTLD_DEFAULT, function);
    return address != NULL && dladdr(address, &about) ? about.dli_fname : "nowhere";
}

/* The file that all four functions come from. */
static const char *allocator(void)
{
    static const char *const names[] = {TEXT(MALLOC), TEXT(CALLOC), TEXT(REALLOC), TEXT(FREE)};
    for (int i = 1; i < 4; i++)
        if (strcmp(home(names[i]), home(names[0])) != 0)
            return "several";
    return home(names[0]);
}

/* Peak RSS in KiB. Not getrusage's: that one remembers the process before exec. */
static long peak(void)
{
    char line[256];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (status != NULL)
        fclose(status);
    return kib;
}

static int list(void)
{
    const char *comma = "";
    printf("{\"allocator\": \"%s\", \"rows\": [", allocator());
    for (int g = 0; g < GROUPS; g++)
        for (const struct row *row = groups[g]; row->name != NULL; row++, comma = ", ")
            printf("%s[\"%s\", %zu, %d]", comma, row->name, row->rounds,
                   row->threads ? row->threads : 1);
    printf("]}\n");
    return 0;
}

static const struct row *named(const char *name)
{
    for (int g = 0; g < GROUPS; g++)
        for (const struct row *row = groups[g]; row->name != NULL; row++)
            if (strcmp(row->name, name) == 0)
                return row;
    give_up("no such row");
}

int main(int count, char **values)
{
    spread_sizes();
    if (count != 3)
        return list();
    const struct row *row = named(values[1]);
    row->run(row, strtoul(values[2], NULL, 10));
    printf("{\"ns\": %.4f, \"cpu_ns\": %.4f, \"operations\": %zu, \"check\": \"%016llx\", "
           "\"rss\": %ld, \"allocator\": \"%s\"}\n", took[0] / operations, took[1] / operations,
           operations, (unsigned long long)all.found, peak(), allocator());
    if (all.found != all.written)
        give_up("a block did not hold what was written to it");
    return 0;
}
