/* ways: so a pre host
 *
 * PyObject_GetArenaAllocator and PyObject_SetArenaAllocator: all small blocks are in arenas of the
 * allocator that was set, and every arena is returned to it with its address and size. Arenas may
 * be anywhere and contain anything. */
#include "arenas.h"
#include <sys/mman.h>

#if defined HOST_CPYTHON && PY_VERSION_HEX < 0x030A0000
enum { ARENA = 256 << 10 };
#else
enum { ARENA = 1 << 20 };
#endif
enum { BLOCKS = 100000, PAGE = 4096 };

static char *blocks[BLOCKS];

static size_t size_of(int i)
{
    return i % 4 ? BLOCK : 48;
}

static void fill_blocks(void)
{
    unsigned bad = 0;
    for (int i = 0; i < BLOCKS; i++) {
        size_t n = size_of(i);
        if (i % 3 == 0) {
            blocks[i] = obj.calloc(1, n);
            bad += blocks[i][0] || memcmp(blocks[i], blocks[i] + 1, n - 1) != 0;
        } else {
            blocks[i] = i % 3 == 1 ? mem.malloc(n) : obj.realloc(NULL, n);
        }
        bad += (uintptr_t)blocks[i] % 16 != 0;
        fill(blocks[i], n, i);
    }
    CHECK(bad == 0);
}

static void empty_blocks(bool backwards)
{
    unsigned bad = 0;
    for (int i = 0; i < BLOCKS; i++) {
        int at = backwards ? BLOCKS - 1 - i : i;
        bad += !holds(blocks[at], size_of(at), at);
        (at % 2 ? &obj : &mem)->free(blocks[at]);
    }
    CHECK(bad == 0);
}

static unsigned blocks_from_source(void)
{
    unsigned count = 0;
    for (int i = 0; i < BLOCKS; i++)
        count += from_source(blocks[i], size_of(i));
    return count;
}

static void check_arenas(void)
{
    for (unsigned i = 0; i < source.made; i++) {
        const struct arena *a = &source.arenas[i];
        CHECK(a->size == ARENA);
        for (const struct arena *b = source.arenas; b < a; b++)
            CHECK(!a->live || !b->live || a->start >= b->start + ARENA ||
                  b->start >= a->start + ARENA);
    }
}

static void use_up_both(void)
{
    use_up(BLOCK);
    for (int i = 0; i < 40000; i++) /* the other size too */
        CHECK(obj.malloc(48) != NULL);
}

/* Full and empty again: most of the arenas are returned each time. */
static void cycles(const char *what)
{
    use_up_both();
    unsigned before = source.live, most = 0;
    for (int cycle = 0; cycle < 4; cycle++) {
        fill_blocks();
        unsigned inside = blocks_from_source();
        CHECK(inside == BLOCKS);
        CHECK(source.live >= before + (BLOCKS / 4 * 3) * BLOCK / ARENA);
        most = source.live > most ? source.live : most;
        check_arenas();
        empty_blocks(cycle % 2);
        CHECK(source.live <= before + most / 3);
        CHECK(source.made == source.freed + source.live);
    }
    CHECK(source.asked == source.made && source.not_ours == 0);
    CHECK(most <= before + BLOCKS * (BLOCK + BLOCK / 4) / ARENA + 2); /* no waste */
    FACT("%s: %d blocks, four times", what, BLOCKS);
}

static void over_the_default(void)
{
    source_over(current_source());
    cycles("over the default");
}

/* ---- other memory ---- */

/* One buffer, full of rubbish; each slot begins at an odd multiple of a page. */
static char buffer[(64 << 20) + (1 << 16)] __attribute__((aligned(1 << 16)));
static bool taken[sizeof buffer / ARENA];
enum { STEP = ARENA + 2 * PAGE, SLOTS = (sizeof buffer - PAGE) / STEP };

static void *slot_alloc(void *ctx, size_t size)
{
    CHECK(size == ARENA && ctx == buffer);
    for (int i = 0; i < SLOTS; i++)
        if (!taken[i]) {
            taken[i] = true;
            return memset(buffer + PAGE + i * STEP, 0xA5, size);
        }
    return NULL;
}

static void slot_free(void *ctx, void *p, size_t size)
{
    size_t i = (size_t)((char *)p - buffer - PAGE) / STEP;
    CHECK(size == ARENA && ctx == buffer && taken[i] && p == buffer + PAGE + i * STEP);
    memset(p, 0x5A, size);
    taken[i] = false;
}

static void over_a_buffer(void)
{
    source_over((PyObjectArenaAllocator){buffer, slot_alloc, slot_free});
    cycles("over a buffer");
}

/* At no page's start. */
static void *malloc_alloc(void *ctx, size_t size)
{
    void *p = malloc(size);
    return p ? memset(p, 0xA5, size) : NULL;
}

static void malloc_free(void *ctx, void *p, size_t size)
{
    memset(p, 0x5A, size);
    free(p);
}

static void over_malloc(void)
{
    source_over((PyObjectArenaAllocator){NULL, malloc_alloc, malloc_free});
    cycles("over malloc");
}

/* ---- changes while blocks live ---- */

static void *mmap_alloc(void *ctx, size_t size)
{
    void *p = mmap(ctx, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void mmap_free(void *ctx, void *p, size_t size)
{
    CHECK(munmap(p, size) == 0);
}

/* An arena may be returned to either of the two: CPython calls the one that is set then. Both
 * unmap. */
static void put_back(void)
{
    PyObjectArenaAllocator first = current_source();
    source_over((PyObjectArenaAllocator){NULL, mmap_alloc, mmap_free});
    use_up_both();
    fill_blocks();
    CHECK(blocks_from_source() == BLOCKS);
    PyObject_SetArenaAllocator(&first);
    unsigned made = source.made;
    for (int cycle = 0; cycle < 3; cycle++) {
        empty_blocks(cycle % 2);
        fill_blocks();
    }
    CHECK(source.made == made);
    source_over(source.below); /* blocks of both live */
    for (int cycle = 0; cycle < 3; cycle++) {
        empty_blocks(cycle % 2);
        fill_blocks();
    }
    CHECK(source.made > made);
    empty_blocks(false);
    FACT("put back and set again");
}

/* ---- the table itself ---- */

static void round_trip(void)
{
    PyObjectArenaAllocator first = current_source(), own = {buffer, slot_alloc, slot_free}, now;
    CHECK(sizeof own == 24);
    PyObject_SetArenaAllocator(&own);
    now = current_source();
    CHECK(memcmp(&now, &own, sizeof own) == 0);
    memset(&own, 0, sizeof own); /* it was copied */
    now = current_source();
    CHECK(now.ctx == buffer && now.alloc == slot_alloc && now.free == slot_free);
    PyObject_SetArenaAllocator(&first);
    now = current_source();
    CHECK(memcmp(&now, &first, sizeof first) == 0);
    FACT("ctx is %s", first.ctx ? "set" : "NULL");
}

static void by_hand(void)
{
    static const size_t sizes[] = {PAGE, 65536, ARENA, 1 << 20, 2 << 20, 3 << 20, 10 * PAGE};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    PyObjectArenaAllocator table = current_source();
    char *p[SIZES];
    for (int i = 0; i < SIZES; i++) {
        p[i] = table.alloc(table.ctx, sizes[i]);
        CHECK(p[i] && (uintptr_t)p[i] % PAGE == 0);
        CHECK(p[i][0] == 0 && memcmp(p[i], p[i] + 1, sizes[i] - 1) == 0); /* fresh */
        fill(p[i], sizes[i], i);
    }
    fill_blocks(); /* from the same allocator, at the same time */
    for (int i = 0; i < SIZES; i++) {
        CHECK(holds(p[i], sizes[i], i));
        table.free(table.ctx, p[i], sizes[i]);
    }
    empty_blocks(false);
    FACT("nothing: %s, too much: %s", table.alloc(table.ctx, 0) ? "memory" : "NULL",
         table.alloc(table.ctx, LARGEST_REQUEST) ? "memory" : "NULL");
}

CASES({"allocator-round-trip", round_trip},
      {"allocator-by-hand", by_hand},
      {"allocator-over-the-default", over_the_default},
      {"allocator-over-a-buffer", over_a_buffer},
      {"allocator-over-malloc", over_malloc},
      {"allocator-put-back", put_back});
