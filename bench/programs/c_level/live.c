/* Python's mixture of sizes, with many blocks alive: within the caches and beyond.
 * An operation is a malloc and the free of another block. */
#include "harness.h"

enum { FEW = 2000, YOUNG = 1 << 15, MANY = 2000000 };

static void *blocks[MANY];

static inline void fill(struct tally *tally, uint64_t *chance, size_t live)
{
    for (size_t i = 0; i < live; i++)
        blocks[i] = take(tally, python_size(random_word(chance)), i);
}

static inline void drop(struct tally *tally, size_t live)
{
    for (size_t i = 0; i < live; i++)
        give(tally, blocks[i]);
}

static inline void replace(struct tally *tally, size_t slot, uint64_t chance, uint64_t number)
{
    give(tally, blocks[slot]);
    blocks[slot] = take(tally, python_size(chance), number);
}

/* Any of them dies next. A short run has a smaller set, or filling it is all. */
static void even(const struct row *row, size_t rounds)
{
    struct tally tally = {0, 0};
    uint64_t chance = SEED;
    size_t live = rounds < row->rounds && row->how == MANY ? MANY / 100 : (size_t)row->how;
    fill(&tally, &chance, live);
    begin();
    for (size_t i = 0; i < rounds; i++) {
        random_word(&chance);
        replace(&tally, (chance >> 32) * live >> 32, chance, i);
    }
    end(rounds);
    drop(&tally, live);
    answer(tally);
}

/* Most die young: of the lifetimes, as many are from 2 to 4 as from 4096 to 8192. */
static void uneven(const struct row *row, size_t rounds)
{
    struct tally tally = {0, 0};
    uint64_t chance = SEED;
    size_t live = row->how;
    fill(&tally, &chance, live);
    begin();
    for (size_t i = 0; i < rounds; i++) {
        random_word(&chance);
        size_t slot = (chance >> 49) >> (chance >> 32) % 16;
        replace(&tally, slot, chance, i);
    }
    end(rounds);
    drop(&tally, live);
    answer(tally);
}

/* From nothing to all of them and back. */
static void build_and_drop(const struct row *row, size_t rounds)
{
    struct tally tally = {0, 0};
    uint64_t chance = SEED;
    size_t live = rounds < (size_t)row->how ? rounds : (size_t)row->how;
    begin();
    fill(&tally, &chance, live);
    drop(&tally, live);
    end(live);
    answer(tally);
}

const struct row live_rows[] = {
    {"Python's mixture, 2000 live", even, 4000000, 0, FEW, 0},
    {"Python's mixture, most die young", uneven, 4000000, 0, YOUNG, 0},
    {"Python's mixture, 2 million live", even, 1000000, 0, MANY, 0},
    {"2 million built and dropped", build_and_drop, MANY, 0, MANY, 0},
    {0},
};
