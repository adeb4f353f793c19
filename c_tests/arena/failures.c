/* ways: so a pre host
 *
 * Arena allocators that refuse, and arena allocators that allocate. While no arena can be had, the
 * domain RAW serves small requests; an arena allocator may use blocks of its own meanwhile. */
#include "arenas.h"
#include "hooks.h"

enum { BLOCKS = 60000 }; /* 30 MiB, far more than is held in reserve */

static char *blocks[BLOCKS];

static char *take(int i)
{
    char *p = i % 3 == 0   ? obj.malloc(BLOCK)
              : i % 3 == 1 ? mem.calloc(BLOCK / 8, 8)
                           : obj.realloc(NULL, BLOCK);
    CHECK(p == NULL || i % 3 != 1 || (p[0] == 0 && memcmp(p, p + 1, BLOCK - 1) == 0));
    if (p)
        fill(p, BLOCK, i);
    return p;
}

static void give_all(void)
{
    unsigned bad = 0;
    for (int i = 0; i < BLOCKS; i++) {
        bad += blocks[i] && !holds(blocks[i], BLOCK, i);
        mem.free(blocks[i]);
        blocks[i] = NULL;
    }
    CHECK(bad == 0);
}

/* The first refusal comes after this number of arenas. */
static void refused_after(unsigned arenas)
{
    struct hook hook;
    source_over(current_source());
    use_up(BLOCK);
    while (source.live < 2) /* or the first that comes is one held in reserve */
        CHECK(obj.malloc(BLOCK) != NULL);
    hook_on(&hook, PYMEM_DOMAIN_RAW);
    for (int round = 0; round < 3; round++) {
        unsigned made = source.made, live = source.live, outside = 0;
        unsigned calls = hook.calls[MALLOC] + hook.calls[CALLOC], frees = hook.calls[FREE];
        source.left = arenas;
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = take(i);
            CHECK(blocks[i] != NULL);
            outside += !from_source(blocks[i], BLOCK);
        }
        CHECK(source.made == made + arenas && source.asked > source.made);
        CHECK(outside > 0 && outside <= hook.calls[MALLOC] + hook.calls[CALLOC] - calls);
        CHECK(outside >= BLOCKS - (live + arenas) * (source.arenas[0].size / BLOCK));
        source.left = -1;
        give_all();
        CHECK(hook.calls[FREE] - frees >= outside);
        CHECK(source.made == source.freed + source.live && source.not_ours == 0);
    }
    for (int i = 0; i < BLOCKS; i++) { /* there is memory again */
        blocks[i] = take(i);
        CHECK(from_source(blocks[i], BLOCK));
    }
    give_all();
    hook_off(&hook);
    FACT("refused after %u: all served", arenas);
}

static void refused_at_once(void) { refused_after(0); }
static void refused_after_one(void) { refused_after(1); }
static void refused_after_two(void) { refused_after(2); }
static void refused_after_five(void) { refused_after(5); }

static void nothing_left(void)
{
    struct hook hook;
    source_over(current_source());
    use_up(BLOCK);
    char *small = obj.malloc(20), *large = obj.malloc(MEDIUM_MAX + 1);
    fill(small, 20, 1);
    fill(large, MEDIUM_MAX, 2);
    hook_on(&hook, PYMEM_DOMAIN_RAW);
    source.left = 0;
    hook.left = 100;
    int got = 0;
    for (int i = 0; i < BLOCKS; i++)
        got += (blocks[i] = take(i)) != NULL;
    CHECK(got >= 100 && got < BLOCKS && hook.left == 0);
    for (int i = 0; i < 3; i++)
        CHECK(take(i) == NULL);
    CHECK(obj.realloc(small, BLOCK) == NULL && holds(small, 20, 1));
    CHECK(obj.realloc(large, MEDIUM_MAX * 2) == NULL && holds(large, MEDIUM_MAX, 2));
    give_all();
    hook.left = -1;
    for (int i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = take(i)) != NULL);
    small = obj.realloc(small, BLOCK);
    CHECK(small && holds(small, 20, 1) && source.made < source.asked);
    unsigned made = source.made;
    source.left = -1;
    give_all();
    for (int i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = take(i)) != NULL && from_source(blocks[i], BLOCK));
    CHECK(source.made > made);
    give_all();
    hook_off(&hook);
    FACT("nothing left: NULL, and then as ever");
}

/* ---- callbacks with blocks of their own ---- */

static void fill_and_empty(void)
{
    for (int cycle = 0; cycle < 4; cycle++) {
        for (int i = 0; i < BLOCKS; i++)
            CHECK((blocks[i] = take(i)) != NULL);
        CHECK(from_source(blocks[BLOCKS - 1], BLOCK));
        give_all();
    }
    CHECK(source.freed > 0);
}

static void use_raw(void)
{
    void *p = raw.malloc(BLOCK), *q = raw.calloc(3, 3000);
    fill(p, BLOCK, 7);
    p = raw.realloc(p, 100000);
    CHECK(holds(p, BLOCK, 7));
    raw.free(p);
    raw.free(q);
}

static void raw_meanwhile(void)
{
    source_over(current_source());
    source.meanwhile = use_raw;
    use_up(BLOCK);
    fill_and_empty();
    FACT("raw meanwhile");
}

#ifndef HOST_CPYTHON /* CPython's lists are not in order at that moment */
static void use_obj(void)
{
    static _Thread_local int depth;
    if (depth == 2)
        return;
    depth++;
    static const size_t sizes[] = {1, 48, BLOCK, 1000, 5000, MEDIUM_MAX, MEDIUM_MAX + 1};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    void *p[SIZES];
    for (int i = 0; i < SIZES; i++) {
        p[i] = i % 2 ? obj.malloc(sizes[i]) : mem.calloc(1, sizes[i]);
        CHECK(p[i] != NULL);
        fill(p[i], sizes[i], i);
    }
    for (int i = 0; i < SIZES; i++) {
        CHECK(holds(p[i], sizes[i], i));
        p[i] = obj.realloc(p[i], 300);
        CHECK(p[i] != NULL && holds(p[i], sizes[i] < 300 ? sizes[i] : 300, i));
        obj.free(p[i]);
    }
    depth--;
}

static void obj_meanwhile(void)
{
    source_over(current_source());
    source.meanwhile = use_obj;
    use_up(BLOCK);
    fill_and_empty();
}
#endif

/* ---- a fork in between ---- */

static void both_go_on(void *unused)
{
    give_all();
    fill_and_empty();
}

static void forked(void)
{
    source_over(current_source());
    use_up(BLOCK);
    for (int i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = take(i)) != NULL);
    CHECK(in_child(both_go_on, NULL) == 0);
    both_go_on(NULL);
    CHECK(source.made == source.freed + source.live && source.not_ours == 0);
    FACT("parent and child go on");
}

/* ---- slow callbacks ---- */

enum { THREADS = 4 };

static void sleep_a_little(void)
{
    usleep(5000);
}

static void *work(void *argument)
{
    size_t seed = (size_t)argument;
    static char *all[THREADS][BLOCKS / 4];
    char **p = all[seed];
    for (int i = 0; i < BLOCKS / 4; i++) {
        LOCKED(p[i] = obj.malloc(BLOCK));
        CHECK(p[i] != NULL);
        fill(p[i], BLOCK, seed + i);
    }
    for (int i = 0; i < BLOCKS / 4; i++) {
        CHECK(holds(p[i], BLOCK, seed + i));
        LOCKED(obj.free(p[i]));
    }
    return NULL;
}

static void slow(void)
{
    source_over(current_source());
    source.meanwhile = sleep_a_little;
    use_up(BLOCK);
    pthread_t threads[THREADS];
    start_threads(THREADS, threads, work);
    UNLOCKED(join_threads(THREADS, threads));
    CHECK(source.made > 0 && source.made == source.freed + source.live);
    FACT("%d threads", THREADS);
}

#ifdef HOST_CPYTHON
#define NOT_IN_HOST(...)
#else
#define NOT_IN_HOST(...) , __VA_ARGS__
#endif
CASES({"failures-at-once", refused_at_once},
      {"failures-after-one-arena", refused_after_one},
      {"failures-after-two-arenas", refused_after_two},
      {"failures-after-five-arenas", refused_after_five},
      {"failures-nothing-left", nothing_left},
      {"failures-raw-meanwhile", raw_meanwhile},
      {"failures-and-a-fork", forked},
      {"slow-callbacks", slow} NOT_IN_HOST({"failures-obj-meanwhile", obj_meanwhile}));
