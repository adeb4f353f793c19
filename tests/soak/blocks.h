/* Blocks with a pattern: each is written from its serial number over its whole length, and
 * compared before it is freed or resized. */
#ifndef BLOCKS_H
#define BLOCKS_H

#include "resident.h"
#include <errno.h>
#include <sys/mman.h>

struct block {
    unsigned char *p; /* NULL: none */
    uint32_t size;
    const struct domain *domain;
    uint64_t serial;
};

/* ---- counts: per thread; the sums are shared with children ---- */

enum { OPERATIONS, BYTES, REFUSED, THREADS, FORKS, EXECS, LIMITS, TRIMS, COUNTS };
static const char *const count_names[COUNTS] = {
    "operations", "bytes_looked_at", "refused", "threads", "forks", "execs", "limits", "trims"};

static atomic_ulong *sums; /* shared with children */
static _Thread_local unsigned long my[COUNTS];

static void share_counts(void)
{
    sums = mmap(NULL, COUNTS * sizeof *sums, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                0);
    if (sums == MAP_FAILED)
        abort();
}

/* Adds this thread's counts; called where a thread or a process ends. */
static void add_counts(void)
{
    for (int i = 0; i < COUNTS; i++)
        atomic_fetch_add(&sums[i], my[i]);
    memset(my, 0, sizeof my);
}

/* ---- the pattern ---- */

/* A word of the pattern: neighbours, and blocks of neighbouring serials, differ. */
static inline uint64_t word_of(uint64_t serial, size_t i)
{
    return (serial + 1) * 0x9e3779b97f4a7c15u + i * 0xd6e8feb86659fd93u;
}

static void write_block(const struct block *block)
{
    const size_t words = block->size / 8;
    for (size_t i = 0; i < words; i++) {
        const uint64_t word = word_of(block->serial, i);
        memcpy(block->p + i * 8, &word, 8);
    }
    const uint64_t last = word_of(block->serial, words);
    memcpy(block->p + words * 8, &last, block->size % 8);
    my[BYTES] += block->size;
}

/* Whether the first n bytes are unchanged. */
static bool is_whole_to(const struct block *block, size_t n)
{
    uint64_t difference = 0;
    const size_t words = n / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, block->p + i * 8, 8);
        difference |= word ^ word_of(block->serial, i);
    }
    uint64_t last = word_of(block->serial, words);
    my[BYTES] += n;
    return difference == 0 && memcmp(block->p + words * 8, &last, n % 8) == 0;
}

static void look_to(const struct block *block, size_t n)
{
    if (!is_whole_to(block, n)) {
        failures++;
        fprintf(stderr, "a block of %u bytes at %p, serial %#llx of %s, was changed\n", block->size,
                (void *)block->p, (unsigned long long)block->serial, block->domain->name);
    }
}

static void look(const struct block *block)
{
    look_to(block, block->size);
}

/* ---- taking and giving ---- */

/* The alignment of a block of a domain; RAW is always aligned to 16. */
static size_t alignment(const struct domain *domain, size_t size)
{
    static const char *align;
    if (align == NULL)
        align = getenv("OBMALLOC_ALIGN") ? getenv("OBMALLOC_ALIGN") : "16";
    const bool packed = strcmp(align, "8") == 0 ||
                        (domain == &obj && strcmp(align, "obj:8") == 0) ||
                        (domain == &mem && strcmp(align, "mem:8") == 0);
    return packed && domain != &raw && size <= SMALL_MAX ? 8 : 16;
}

/* Sizes as Python requests them: most are small, one in a hundred has up to 64 KiB. */
static size_t pythons_size(uint64_t *random)
{
    const size_t roll = random_below(random, 100);
    return random_below(random, roll < 70   ? 129
                                : roll < 85 ? 513
                                : roll < 95 ? 4097
                                : roll < 99 ? 32769
                                            : 65537);
}

/* Whether requests may be refused here. */
static bool may_fail;

static bool was_refused(void)
{
    if (!may_fail)
        fprintf(stderr, "a request was refused: errno %d\n", errno);
    failures += !may_fail;
    my[REFUSED]++;
    return false;
}

/* Takes a block of a domain; false if it is refused. */
static bool take(struct block *block, const struct domain *domain, size_t size, uint64_t serial)
{
    const bool cleared = serial % 4 == 0;
    my[OPERATIONS]++;
    *block = (struct block){NULL, (uint32_t)size, domain, serial};
    block->p = cleared ? domain->calloc(1, size) : domain->malloc(size);
    if (block->p == NULL)
        return was_refused();
    CHECK((uintptr_t)block->p % alignment(domain, size) == 0);
    if (cleared) {
        unsigned char any = 0;
        for (size_t i = 0; i < size; i++)
            any |= block->p[i];
        CHECK(any == 0);
    }
    write_block(block);
    return true;
}

static bool take_any(struct block *block, uint64_t *random)
{
    static atomic_ulong serials;
    const size_t roll = random_below(random, 16);
    return take(block, roll == 0 ? &raw : roll < 6 ? &mem : &obj, pythons_size(random),
                atomic_fetch_add(&serials, 1) * 8 + roll % 8);
}

/* Compares it over its whole length and frees it: MEM and OBJ are one allocator, so one in
 * eight is freed by the other domain's function. */
static void give(struct block *block)
{
    if (block->p == NULL)
        return;
    look(block);
    const struct domain *by = block->domain;
    if (by != &raw && block->serial % 8 == 3)
        by = by == &obj ? &mem : &obj;
    by->free(block->p);
    my[OPERATIONS]++;
    block->p = NULL;
}

/* Resizes it one to six times; its contents stay. */
static void change(struct block *block, uint64_t *random)
{
    for (size_t left = 1 + random_below(random, 6); left > 0; left--) {
        size_t size = random_below(random, 2) ? pythons_size(random)
                                              : block->size + block->size / 8 + 1;
        if (size > 65536)
            size = 8;
        unsigned char *p = block->domain->realloc(block->p, size);
        my[OPERATIONS]++;
        if (p == NULL) {
            was_refused();
            look(block);
            return;
        }
        block->p = p;
        look_to(block, size < block->size ? size : block->size);
        block->size = (uint32_t)size;
        block->serial += 8;
        write_block(block);
    }
}

#endif
