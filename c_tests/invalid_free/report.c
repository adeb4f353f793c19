/* ways: so a pre
 *
 * OBMALLOC_ON_ERROR=report: each invalid free is reported in a line of its own, the call is
 * ignored, and the program goes on with every live block as it was, no block allocated twice, and
 * right counts. (The default, abort, is tested by abort.c.) A block freed twice is seen when it is
 * returned to its pool, so nothing is allocated before all blocks have been.
 *
 * In both settings a pointer into an arena that was unmapped is distinguished from a block of the
 * C library. */
#include "harness.h"
#include "stats.h"

size_t obmalloc_trim(size_t keep);

enum { BLOCKS = 4000, MANY = 100000, SIZE = 48 };

static void *blocks[BLOCKS], *many[MANY];

/* All live blocks are intact, and no new block is one of them. */
static void all_is_well(size_t live)
{
    static void *more[BLOCKS * 2];
    for (size_t i = 0; i < live; i++)
        CHECK(holds(blocks[i], SIZE, i));
    for (size_t i = 0; i < BLOCKS * 2; i++)
        fill(more[i] = obj.malloc(SIZE), SIZE, i + 17);
    for (size_t i = 0; i < BLOCKS * 2; i++)
        CHECK(holds(more[i], SIZE, i + 17));
    for (size_t i = 0; i < live; i++)
        CHECK(holds(blocks[i], SIZE, i));
    for (size_t i = 0; i < BLOCKS * 2; i++)
        obj.free(more[i]);
    read_stats();
    CHECK((size_t)total_of_classes("blocks_live") == live);
}

static void allocate(void)
{
    for (size_t i = 0; i < BLOCKS; i++)
        fill(blocks[i] = obj.malloc(SIZE), SIZE, i);
}

static void free_from(size_t first)
{
    for (size_t i = first; i < BLOCKS; i++)
        obj.free(blocks[i]);
}

static void twice(void *unused)
{
    allocate();
    for (size_t i = BLOCKS / 2; i < BLOCKS / 2 + 5; i++)
        obj.free(blocks[i]);
    free_from(BLOCKS / 2);
    obmalloc_trim(0);
    all_is_well(BLOCKS / 2);
}

static void within(void *unused)
{
    allocate();
    for (size_t i = 0; i < 5; i++) /* live blocks, and all of them stay */
        obj.free((char *)blocks[i * 100] + (i == 4 ? 1 : 16));
    free_from(BLOCKS / 2);
    obmalloc_trim(0);
    all_is_well(BLOCKS / 2);
}

static void long_after(void *unused)
{
    allocate();
    free_from(0);
    obmalloc_trim(0); /* its pools are empty, or it has none */
    for (size_t i = 0; i < 5; i++)
        obj.free(blocks[i * 700]);
    obmalloc_trim(0);
    all_is_well(0);
}

/* In a thread that ends, which flushes its magazines. */
static void *free_five_twice(void *unused)
{
    for (size_t i = BLOCKS / 2; i < BLOCKS / 2 + 5; i++) {
        obj.free(blocks[i]);
        obj.free(blocks[i]);
    }
    return unused;
}

static void at_thread_end(void *unused)
{
    pthread_t thread;
    allocate();
    pthread_create(&thread, NULL, free_five_twice, unused);
    pthread_join(thread, NULL);
    free_from(BLOCKS / 2 + 5);
    obmalloc_trim(0);
    all_is_well(BLOCKS / 2);
}

/* Where a pool of these blocks has none: before the first. */
static void beside(void *unused)
{
    allocate();
    for (size_t i = BLOCKS / 2; i < BLOCKS; i++) {
        obj.free(blocks[i]);
        if (i >= BLOCKS - 5)
            obj.free((void *)(((uintptr_t)blocks[i] & ~(uintptr_t)0xffff) + 16));
    }
    obmalloc_trim(0);
    all_is_well(BLOCKS / 2);
}

/* Five blocks of arenas that were unmapped. */
static void *const *returned(void)
{
    allocate();
    for (size_t i = 0; i < MANY; i++)
        many[i] = obj.malloc(400);
    for (size_t i = 0; i < MANY; i++)
        obj.free(many[i]);
    obmalloc_trim(0);
    return many + MANY / 2;
}

static void into_returned_memory(void *unused)
{
    void *const *gone = returned();
    for (size_t i = 0; i < 5; i++)
        obj.free(gone[i * 100]);
    all_is_well(BLOCKS);
}

static void resize_returned_memory(void *unused)
{
    void *const *gone = returned();
    for (size_t i = 0; i < 5; i++)
        CHECK(obj.realloc(gone[i * 100], 500) == NULL);
    all_is_well(BLOCKS);
}

/* A mistake in a loop fills no disk. */
static void in_a_loop(void *unused)
{
    allocate();
    for (size_t i = 0; i < MANY; i++) {
        obj.free((char *)blocks[7] + 16);
    }
    obmalloc_trim(0);
    all_is_well(BLOCKS);
}

static size_t lines_in(const char *said)
{
    size_t lines = 0;
    for (; *said; lines++) {
        CHECK(strncmp(said, "obmalloc: 0x", 12) == 0 ||
              strncmp(said, "obmalloc: further", 17) == 0);
        said = strchr(said, '\n') + 1;
    }
    return lines;
}

static void reports(void)
{
    static char said[40000];
    static const struct {
        const char *name, *word;
        void (*make)(void *);
        size_t lines;
    } mistakes[] = {
        {"freed twice", "freed twice", twice, 5},
        {"freed within a block", "no block begins there", within, 5},
        {"freed beside a pool's blocks", "no block begins there", beside, 5},
        {"freed long after", "freed", long_after, 5},
        {"freed twice in a thread that ends", "freed twice", at_thread_end, 5},
        {"freed into returned memory", "its arena was unmapped", into_returned_memory, 5},
        {"resized in returned memory", "its arena was unmapped", resize_returned_memory, 5},
        {"freed wrongly in a loop", "no block begins there", in_a_loop, 101},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        STEP(mistakes[i].name) {
            setenv("OBMALLOC_ON_ERROR", "report", 1);
            int status = output_in_child(mistakes[i].make, NULL, said, sizeof said);
            CHECK(status == 0);
            CHECK(lines_in(said) == mistakes[i].lines);
            CHECK(strstr(said, mistakes[i].word) && strstr(said, "; ignored\n"));
            setenv("OBMALLOC_ON_ERROR", "abort", 1);
            status = output_in_child(mistakes[i].make, NULL, said, sizeof said);
            CHECK(ended_in_one_line(status, said));
            CHECK(strstr(said, mistakes[i].word) && !strstr(said, "ignored"));
        }
}

CASES({"report", reports, .reads_stderr = true});
