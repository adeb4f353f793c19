/* ways: so a pre
 *
 * Size classes, pools and arenas as the statistics show them: the class of each request; a pool's
 * states from empty over used to full and back; arenas that are mapped and, once empty, unmapped;
 * and the size above which the C library serves.
 *
 * The work is done in threads: when a thread has ended, its magazines are empty, so the numbers
 * are exact. */
#include "stats.h"

static void in_thread(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, body, argument) == 0);
    pthread_join(thread, NULL);
}

/* ---- request -> class ---- */

static void expect_class(size_t n, size_t class)
{
    read_stats();
    long long before = class_stat(class, "blocks_live");
    long long all_before = total_of_classes("blocks_live");
    void *p = obj.malloc(n);
    read_stats();
    if (class_stat(class, "blocks_live") != before + 1)
        fprintf(stderr, "a request of %zu is not in class %zu\n", n, class);
    CHECK(class_stat(class, "blocks_live") == before + 1);
    CHECK(total_of_classes("blocks_live") == all_before + 1);
    obj.free(p);
    read_stats();
    CHECK(class_stat(class, "blocks_live") == before);
}

static void *requests(void *unused)
{
    size_t classes = 0;
    for (size_t previous = 0, size = 16; size <= MEDIUM_MAX; classes++) {
        expect_class(previous + 1, size);
        expect_class(size - 1, size);
        expect_class(size, size);
        previous = size;
        size = next_class_size(size);
    }
    CHECK(classes == 80);
    FACT("%zu classes", classes);
    return unused;
}

/* ---- pools ---- */

enum { POOL = 64 << 10 };
static void *blocks[POOL / 16 * 2];

static void *one_pool(void *argument)
{
    const size_t size = *(size_t *)argument;
    read_stats();
    long long free_before = stat_of("pools", "free"), full_before = stat_of("pools", "full");
    long long arenas_before = stat_of("arenas", "in_use");
    CHECK(class_stat(size, "pools") == 0); /* empty: a pool has no class */

    size_t n = 0; /* used: some taken, some free */
    blocks[n++] = obj.malloc(size);
    read_stats();
    CHECK(class_stat(size, "pools") == 1);
    CHECK(class_stat(size, "blocks_live") == 1);
    if (stat_of("arenas", "in_use") == arenas_before)
        CHECK(stat_of("pools", "free") == free_before - 1);
    size_t capacity = (size_t)(class_stat(size, "blocks_live") + class_stat(size, "blocks_free") +
                               class_stat(size, "blocks_in_magazines"));
    const size_t room = size == 16 ? POOL / 2 : POOL; /* the smallest use a half */
    CHECK(capacity <= room / size && capacity >= (room - 64) / size); /* begins at 48 */

    while (n < capacity) /* full: all taken */
        blocks[n++] = obj.malloc(size);
    read_stats();
    CHECK(class_stat(size, "pools") == 1 && class_stat(size, "blocks_free") == 0);
    CHECK(class_stat(size, "blocks_live") == (long long)capacity);
    CHECK(stat_of("pools", "full") == full_before + 1);
    blocks[n++] = obj.malloc(size); /* one more needs a second pool */
    read_stats();
    CHECK(class_stat(size, "pools") == 2 && stat_of("pools", "full") > full_before);

    while (n > 1)
        obj.free(blocks[--n]);
    return NULL;
}

static void *last_block(void *unused)
{
    obj.free(blocks[0]);
    return unused;
}

static void pool_states(size_t size)
{
    read_stats();
    long long full = stat_of("pools", "full"), pools = stat_of("pools", "free");
    in_thread(one_pool, &size);
    obmalloc_trim(SIZE_MAX); /* empties the depots, no more */
    read_stats();
    CHECK(stat_of("pools", "full") == full); /* used again: one block taken */
    CHECK(class_stat(size, "pools") == 1 && class_stat(size, "blocks_live") == 1);
    in_thread(last_block, NULL);
    obmalloc_trim(SIZE_MAX);
    read_stats();
    CHECK(class_stat(size, "blocks_live") == 0);
    CHECK(class_stat(size, "blocks_in_magazines") == 0);
    CHECK(class_stat(size, "pools") == 0); /* empty again: back to its arena */
    CHECK(stat_of("pools", "free") >= pools);
}

/* ---- arenas ---- */

enum { ARENAS = 40, ARENA = 2 << 20, MANY = ARENAS * (ARENA / 512) };

static void *many_arenas(void *unused)
{
    static void *many[MANY];
    for (size_t i = 0; i < MANY; i++)
        fill(many[i] = obj.malloc(512), 16, i);
    read_stats();
    CHECK(stat_of("arenas", "in_use") >= ARENAS && stat_of("arenas", "in_use") < ARENAS + 8);
    CHECK(stat_of("bytes", "from_os") >= (long long)ARENAS * ARENA);
    CHECK(stat_of("bytes", "live") == bytes_of_classes("blocks_live"));
    for (size_t i = 0; i < MANY; i++) {
        CHECK(holds(many[i], 16, i));
        obj.free(many[i]);
    }
    return unused;
}

static void arenas_come_and_go(void)
{
    read_stats();
    long long unmapped = stat_of("arenas", "unmapped_total");
    in_thread(many_arenas, NULL);
    for (int tenths = 0; tenths < 200; tenths++) { /* may wait for a decay time */
        read_stats();
        if (stat_of("bytes", "from_os") < (long long)ARENAS * ARENA / 2)
            break;
        usleep(100000);
    }
    CHECK(stat_of("bytes", "from_os") < (long long)ARENAS * ARENA / 2);
    CHECK(stat_of("arenas", "unmapped_total") > unmapped);
    CHECK(stat_of("arenas", "highwater") >= ARENAS);
    CHECK(stat_of("arenas", "in_use") < 8);
    CHECK(total_of_classes("blocks_live") == 0);
    in_thread(many_arenas, NULL); /* and once more from what is left */
}

/* ---- above the classes ---- */

static void *above(void *unused)
{
    read_stats();
    long long below = stat_of("large", "served_below_total");
    long long live = total_of_classes("blocks_live");
    void *p = obj.malloc(MEDIUM_MAX + 1), *q = mem.calloc(1, 1 << 20), *r = obj.malloc(MEDIUM_MAX);
    read_stats();
    CHECK(stat_of("large", "served_below_total") == below + 2);
    CHECK(total_of_classes("blocks_live") == live + 1);
    obj.free(p);
    mem.free(q);
    obj.free(r);
    return unused;
}

static void structure(void)
{
    static const size_t sizes[] = {16, 48, 336, 512, 640, 2304, 14336, 20480};
    STEP("which class serves which request") in_thread(requests, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        STEP("a pool's way") pool_states(sizes[i]);
    STEP("arenas come and go") arenas_come_and_go();
    STEP("above the classes") in_thread(above, NULL);
}

CASES({"structure", structure, "OBMALLOC_POOL_MAX=32768"});
