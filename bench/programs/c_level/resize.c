/* Buffers and lists that grow, and blocks of zeros. An operation is a realloc, or
 * a calloc and its free. */
#include "harness.h"

enum { BUFFER = 100 << 10, LISTS = 1000, WINDOW = 16 };

static void *blocks[LISTS];

/* One buffer from 16 bytes to 100 KiB, by an eighth each time. Nothing is behind it, so
 * the C library lets it grow where it is. */
static void buffer(const struct row *row, size_t rounds)
{
    struct tally tally = {0, 0};
    size_t steps = 0;
    (void)row;
    begin();
    for (size_t round = 0; round < rounds; round++) {
        void *p = take(&tally, 16, round);
        for (size_t n = 16; n < BUFFER; steps++)
            p = grow(&tally, p, n += n / 8, steps);
        give(&tally, p);
    }
    end(steps);
    answer(tally);
}

/* Appending in turn to a thousand lists: sizes as CPython's lists have them. */
static void lists(const struct row *row, size_t rounds)
{
    static const uint16_t sizes[] = {32, 64, 128, 192, 256, 320, 400};
    enum { STEPS = sizeof sizes / sizeof *sizes };
    struct tally tally = {0, 0};
    (void)row;
    begin();
    for (size_t round = 0; round < rounds; round++) {
        for (int i = 0; i < LISTS; i++)
            blocks[i] = take(&tally, sizes[0], round + i);
        for (int step = 1; step < STEPS; step++)
            for (int i = 0; i < LISTS; i++)
                blocks[i] = grow(&tally, blocks[i], sizes[step], round + i);
        for (int i = 0; i < LISTS; i++)
            give(&tally, blocks[i]);
    }
    end(rounds * LISTS * (STEPS - 1));
    answer(tally);
}

/* A few are alive; each has been written to before it comes again. */
static void zeros(const struct row *row, size_t rounds)
{
    struct tally tally = {0, 0};
    size_t n = row->size;
    for (int i = 0; i < WINDOW; i++)
        blocks[i] = take(&tally, n, i);
    begin();
    for (size_t i = 0; i < rounds; i++) {
        char *p = CALLOC(1, n);
        if (p == NULL)
            give_up("no memory");
        tally.found += *(word *)p | *(word *)(p + n / 2) | *(word *)(p + n - 8);
        mark(&tally, p, n, i);
        give(&tally, blocks[i % WINDOW]);
        blocks[i % WINDOW] = p;
    }
    end(rounds);
    for (int i = 0; i < WINDOW; i++)
        give(&tally, blocks[i]);
    answer(tally);
}

const struct row resize_rows[] = {
    {"realloc from 16 bytes to 100 KiB", buffer, 20000, 0, 0, 0},
    {"realloc of 1000 lists to 400 bytes", lists, 500, 0, 0, 0},
    {"calloc of 64 bytes", zeros, 6000000, 64, 0, 0},
    {"calloc of 512 bytes", zeros, 4000000, 512, 0, 0},
    {"calloc of 4 KiB", zeros, 1000000, 4096, 0, 0},
    {0},
};
