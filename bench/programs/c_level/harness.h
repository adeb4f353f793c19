/* What the C-level workloads share: the allocator under test, tags, time, chance.
 *
 * The same sources are built twice: as they are, they call malloc and its three
 * siblings, so whatever is preloaded answers; with -DPYTHON_NAMES they call
 * PyObject_* of the library they are linked with. Either way the calls are
 * ordinary ones through the linker's stubs. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef PYTHON_NAMES
#define MALLOC PyObject_Malloc
#define CALLOC PyObject_Calloc
#define REALLOC PyObject_Realloc
#define FREE PyObject_Free
extern void *PyObject_Malloc(size_t n);
extern void *PyObject_Calloc(size_t count, size_t size);
extern void *PyObject_Realloc(void *p, size_t n);
extern void PyObject_Free(void *p);
#else
#define MALLOC malloc
#define CALLOC calloc
#define REALLOC realloc
#define FREE free
#endif

/* A line of the table. */
struct row {
    const char *name;
    void (*run)(const struct row *row, size_t rounds);
    size_t rounds;      /* of a full run: 50 to 200 ms */
    int size;           /* of the blocks, where they are of one size */
    int how;            /* an option of the workload */
    int threads;        /* that allocate or free at the same time; 0 means one */
};

extern const struct row batch_rows[], live_rows[], resize_rows[], thread_rows[];

/* The measured part of a run is between these two; the time is divided by
 * `operations`. */
void begin(void);
void end(size_t operations);

/* Ends the program: no memory, or no thread. */
void give_up(const char *what) __attribute__((noreturn));

/* ---- tags: the first word of a block, and its complement in the last one ---- */

typedef uint64_t word __attribute__((may_alias, aligned(1)));

/* Sums of the written and of the read words, for each thread. */
struct tally {
    uint64_t written, found;
};

/* Adds a complete tally to the program's answer. By value: a variable without an address can
 * stay in registers across the calls. */
void answer(struct tally tally);

static inline void mark(struct tally *tally, void *p, size_t n, uint64_t number)
{
    uint64_t tag = number << 20 | n;
    if (p == NULL)
        give_up("no memory");
    *(word *)p = tag;
    *(word *)((char *)p + n - 8) = ~tag;
    tally->written += tag;
}

/* A block whose two ends do not belong together spoils the sum. */
static inline void check(struct tally *tally, const void *p)
{
    uint64_t tag = *(const word *)p;
    uint64_t other = *(const word *)((const char *)p + (tag & 0xfffff) - 8);
    tally->found += tag + (tag ^ ~other) * 3;
}

/* `n` is from 16 bytes to less than 1 MiB. */
static inline void *take(struct tally *tally, size_t n, uint64_t number)
{
    void *p = MALLOC(n);
    mark(tally, p, n, number);
    return p;
}

static inline void give(struct tally *tally, void *p)
{
    check(tally, p);
    FREE(p);
}

/* What a block holds must have moved along with it. */
static inline void *grow(struct tally *tally, void *p, size_t n, uint64_t number)
{
    p = REALLOC(p, n);
    if (p == NULL)
        give_up("no memory");
    check(tally, p);
    mark(tally, p, n, number);
    return p;
}

/* ---- chance, the same in every run ---- */

enum { SEED = 88172645, SIZES = 4096 };

static inline uint64_t random_word(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* What Python programs ask for: each size as often as it is its share. */
extern uint16_t python_sizes[SIZES];

static inline size_t python_size(uint64_t chance)
{
    return python_sizes[chance % SIZES];
}

#endif
