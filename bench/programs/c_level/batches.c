/* Blocks of one size: freed at once, or a thousand taken and then freed.
 * An operation is a malloc and its free. */
#include "harness.h"

enum { BATCH = 1000 };
enum order { FIFO, LIFO, ANY };

static void *blocks[BATCH];
static uint16_t order[BATCH];

static void put_in_order(enum order how)
{
    uint64_t chance = SEED;
    for (int i = 0; i < BATCH; i++)
        order[i] = how == LIFO ? BATCH - 1 - i : i;
    for (int i = BATCH - 1; i > 0 && how == ANY; i--) {
        int other = random_word(&chance) % (i + 1);
        uint16_t moved = order[i];
        order[i] = order[other];
        order[other] = moved;
    }
}

static void at_once(const struct row *row, size_t rounds)
{
    struct tally tally = {0, 0};
    begin();
    for (size_t i = 0; i < rounds; i++)
        give(&tally, take(&tally, row->size, i));
    end(rounds);
    answer(tally);
}

static void batches(const struct row *row, size_t rounds)
{
    struct tally tally = {0, 0};
    put_in_order(row->how);
    begin();
    for (size_t round = 0; round < rounds; round++) {
        for (int i = 0; i < BATCH; i++)
            blocks[i] = take(&tally, row->size, round + i);
        for (int i = 0; i < BATCH; i++)
            give(&tally, blocks[order[i]]);
    }
    end(rounds * BATCH);
    answer(tally);
}

const struct row batch_rows[] = {
    {"16 bytes, freed at once", at_once, 10000000, 16, 0, 0},
    {"48 bytes, freed at once", at_once, 10000000, 48, 0, 0},
    {"64 bytes, freed at once", at_once, 10000000, 64, 0, 0},
    {"256 bytes, freed at once", at_once, 10000000, 256, 0, 0},
    {"512 bytes, freed at once", at_once, 10000000, 512, 0, 0},
    {"48 bytes, 1000 first in first out", batches, 8000, 48, FIFO, 0},
    {"48 bytes, 1000 last in first out", batches, 8000, 48, LIFO, 0},
    {"48 bytes, 1000 in random order", batches, 8000, 48, ANY, 0},
    {0},
};
