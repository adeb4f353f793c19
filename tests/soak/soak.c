/* Hours compressed into minutes: threads in many roles, forks, trims and refused requests
 * at once, in cycles. Each block is written over its whole length and compared before it is
 * freed. At the end of a cycle all threads have ended, and then
 *
 *     the live blocks, by the library's statistics, are those that this program holds,
 *     also in a child, and in its threads that adopt the magazines of lost threads
 *     all freed: no block is live, in pools and in the fallback
 *     after a while free pages are purged, and no helper thread and no child is left
 *     after a trim: no memory is free and resident; where a few blocks keep the arenas
 *     mapped, the resident memory is what the statistics report
 *
 * Each cycle writes a line of JSON; test_soak.py checks that no figure grows.
 *
 *     soak SEED CYCLES SECONDS    cycles of SECONDS each
 *     soak exec SEED              the program of children that call exec */
#include "children.h"
#include "queue.h"
#include <malloc.h>

enum { CHURNERS = 3, SLOTS = 6000, PAIRS = 2, FORKERS = 2, CROWDED = 120000, PARKED = 4 };

static atomic_bool stop;
static atomic_bool peak; /* or the program idles */
static atomic_int producers;
static struct queue pairs[PAIRS], mailbox;
static uint64_t seed;

static uint64_t seed_of(size_t role, size_t number)
{
    return (seed + 1) * 0x9e3779b97f4a7c15u + role * 1000003 + number * 7919 + 1;
}

/* ---- the roles ---- */

/* Holds blocks of its own: many at a peak, few otherwise. */
static void *churner(void *argument)
{
    static struct block all[CHURNERS][SLOTS];
    struct block *blocks = all[(uintptr_t)argument];
    uint64_t random = seed_of(1, (uintptr_t)argument + sums[OPERATIONS]);
    for (size_t live = 0, turn = 0; !stop; turn++) {
        struct block *block = &blocks[random_below(&random, SLOTS)];
        const size_t wanted = peak ? SLOTS - SLOTS / 8 : SLOTS / 50;
        if (block->p == NULL)
            live += live < wanted && take_any(block, &random);
        else if (live > wanted || random_below(&random, 3) == 0)
            give(block), live--;
        else if (random_below(&random, 2))
            change(block, &random);
        else
            look(block);
        if (!peak && live <= wanted && turn % 64 == 0)
            usleep(500);
    }
    for (int i = 0; i < SLOTS; i++)
        give(&blocks[i]);
    add_counts();
    return NULL;
}

/* At a peak, many small blocks at once; all but one in fifty are freed, then the rest: pages
 * are purged and needed again. */
static void *builder(void *unused)
{
    static struct block blocks[CROWDED];
    uint64_t random = seed_of(2, sums[OPERATIONS]);
    while (!stop) {
        if (!peak) {
            usleep(2000);
            continue;
        }
        for (int i = 0; i < CROWDED && !stop; i++)
            take(&blocks[i], i % 2 ? &obj : &mem, random_below(&random, 400), (uint64_t)i);
        for (int i = 0; i < CROWDED; i++)
            if (random_below(&random, 50))
                give(&blocks[i]);
        usleep(3000);
        for (int i = 0; i < CROWDED; i++)
            give(&blocks[i]);
    }
    add_counts();
    return unused;
}

static void *producer(void *argument)
{
    const uintptr_t number = (uintptr_t)argument;
    uint64_t random = seed_of(3, number + sums[OPERATIONS]);
    while (!stop) {
        struct block block;
        if (!take_any(&block, &random))
            continue;
        while (!put(&pairs[number], &block))
            usleep(200);
        if (!peak && block.serial % 16 == 0)
            usleep(300);
    }
    producers--;
    add_counts();
    return NULL;
}

/* Frees the blocks of another thread, in bursts, also while that thread sleeps. */
static void *consumer(void *argument)
{
    const uintptr_t number = (uintptr_t)argument;
    struct block block;
    for (;;) {
        const bool last = producers == 0;
        bool any = false;
        for (int i = 0; i < 500 && get(&pairs[number], &block); i++, any = true)
            give(&block);
        for (int i = 0; i < 200 && get(&mailbox, &block); i++, any = true)
            give(&block);
        if (!any && last)
            break;
        if (!any)
            usleep(500);
    }
    add_counts();
    return NULL;
}

/* A short-lived thread: other threads free its blocks, or its key's destructor does, which
 * runs before or after the library's. */
static pthread_key_t last_will;

static void at_thread_end(void *block)
{
    give(block);
    free(block);
    add_counts();
}

static void *short_life(void *argument)
{
    uint64_t random = seed_of(4, (uintptr_t)argument);
    struct block block, *kept = malloc(sizeof *kept);
    my[THREADS]++;
    come_and_go(&random, 200 + random_below(&random, 800));
    for (size_t left = random_below(&random, 60); left > 0; left--)
        if (take_any(&block, &random) && !put(&mailbox, &block))
            give(&block);
    take_any(kept, &random);
    pthread_setspecific(last_will, kept);
    return NULL;
}

static void *starter(void *unused)
{
    enum { AT_ONCE = 5 };
    static uintptr_t number;
    while (!stop) {
        pthread_t threads[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++)
            CHECK(pthread_create(&threads[i], NULL, short_life, (void *)number++) == 0);
        for (int i = 0; i < AT_ONCE; i++)
            pthread_join(threads[i], NULL);
        usleep(peak ? 500 : 5000);
    }
    producers--;
    return unused;
}

static void *forker(void *argument)
{
    uint64_t random = seed_of(5, (uintptr_t)argument + sums[OPERATIONS]);
    while (!stop) {
        fork_once(&random, 0);
        come_and_go(&random, 300);
        usleep(random_below(&random, 8000));
    }
    add_counts();
    return NULL;
}

/* Trims, and reads statistics and survivors meanwhile. */
static void *trimmer(void *unused)
{
    static char text[1 << 16];
    uint64_t random = seed_of(6, sums[OPERATIONS]);
    for (; !stop; usleep(random_below(&random, 20000))) {
        my[TRIMS]++;
        if (random_below(&random, 8) == 0)
            obmalloc_before_fork();
        else
            obmalloc_trim(random_below(&random, 3) * MIB);
        CHECK(obmalloc_stats_json(text, sizeof text) > 0);
        look_at_survivors(8, &random);
    }
    add_counts();
    return unused;
}

/* ---- a cycle ---- */

struct role {
    void *(*body)(void *);
    int count;
};

static const struct role roles[] = {{churner, CHURNERS}, {builder, 1},        {consumer, PAIRS},
                                    {producer, PAIRS},   {starter, 1},        {forker, FORKERS},
                                    {trimmer, 1}};
enum { ROLES = sizeof roles / sizeof *roles, MOST = 16 };

static void run_roles(double length)
{
    pthread_t threads[ROLES][MOST];
    const double begin = seconds();
    stop = false;
    producers = PAIRS + 1; /* the starter is one */
    for (int r = 0; r < ROLES; r++)
        for (uintptr_t i = 0; i < (uintptr_t)roles[r].count; i++)
            CHECK(pthread_create(&threads[r][i], NULL, roles[r].body, (void *)i) == 0);
    for (int part = 0; part < 8; part++) {
        peak = part % 4 != 3;
        const double until = begin + length * (part + 1) / 8;
        while (seconds() < until)
            usleep(1000);
    }
    stop = true;
    for (int r = 0; r < ROLES; r++)
        for (int i = 0; i < roles[r].count; i++)
            pthread_join(threads[r][i], NULL);
    CHECK(mailbox.count == 0);
}

/* ---- survivors ---- */

enum { STRIPES = 8 };

static void *make_survivors(void *argument)
{
    uint64_t random = seed_of(7, (uintptr_t)argument);
    for (size_t i = (uintptr_t)argument; i < SURVIVORS; i += STRIPES)
        take_any(&survivors[i], &random);
    add_counts();
    return NULL;
}

static void *end_survivors(void *argument)
{
    for (size_t i = (uintptr_t)argument; i < SURVIVORS; i += STRIPES)
        give(&survivors[i]);
    add_counts();
    return NULL;
}

/* One thread per stripe; this thread runs the first. */
static void by_stripes(void *(*body)(void *))
{
    pthread_t threads[STRIPES];
    for (uintptr_t i = 1; i < STRIPES; i++)
        CHECK(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
    body((void *)0);
    for (int i = 1; i < STRIPES; i++)
        pthread_join(threads[i], NULL);
}

/* ---- live blocks ---- */

static long long live(void)
{
    read_stats();
    return total_of_classes("blocks_live") + stat_of("large", "blocks_live");
}

/* The live blocks of the statistics are exactly the survivors. (Waits for it: statistics are
 * not of one moment. A lost block stays lost.) */
static void must_be_live(const char *when)
{
    long long held = 0;
    for (int i = 0; i < SURVIVORS; i++)
        held += survivors[i].p && survivors[i].domain != &raw;
    if (!COMES(live() == held, 5)) {
        failures++;
        fprintf(stderr, "%s: %lld blocks are held, live are %lld in pools and %lld below\n", when,
                held, total_of_classes("blocks_live"), stat_of("large", "blocks_live"));
        for (const char *c = NULL; held == 0 && (c = next_class(c));)
            if (in_class(c, "blocks_live") != 0)
                fprintf(stderr, "    %lld of %lld bytes\n", in_class(c, "blocks_live"),
                        in_class(c, "size"));
    }
}

static pthread_barrier_t parked, released;

/* Fills its magazines, and waits. */
static void *park(void *argument)
{
    uint64_t random = seed_of(8, (uintptr_t)argument);
    come_and_go(&random, 3000);
    add_counts();
    pthread_barrier_wait(&parked);
    pthread_barrier_wait(&released);
    come_and_go(&random, 100);
    add_counts();
    return NULL;
}

static void count_in_child(void *unused)
{
    (void)unused;
    uint64_t random = seed;
    must_be_live("in a child");
    in_threads(PARKED + 2, &random); /* they adopt the magazines of the lost threads */
    must_be_live("in a child, after threads");
    by_stripes(end_survivors);
    must_be_live("in a child, at its end");
    obmalloc_trim(0);
    add_counts();
}

/* A fork while no thread is in an allocator call, so that all blocks can be counted. */
static void fork_at_rest(void)
{
    pthread_t threads[PARKED];
    pthread_barrier_init(&parked, NULL, PARKED + 1);
    pthread_barrier_init(&released, NULL, PARKED + 1);
    for (uintptr_t i = 0; i < PARKED; i++)
        CHECK(pthread_create(&threads[i], NULL, park, (void *)i) == 0);
    pthread_barrier_wait(&parked);
    must_be_live("before a fork");
    my[FORKS]++;
    add_counts();
    CHECK(in_child(count_in_child, NULL) == 0);
    must_be_live("after a fork");
    pthread_barrier_wait(&released);
    for (int i = 0; i < PARKED; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&parked);
    pthread_barrier_destroy(&released);
}

/* ---- the end of a cycle ---- */

static long setting(const char *name, long by_default)
{
    const char *text = getenv(name);
    return text ? atol(text) : by_default;
}

/* Free memory is purged after a while. */
static void after_a_while(void)
{
    const long decay = setting("OBMALLOC_DECAY_MS", 1000);
    const bool thread = setting("OBMALLOC_BACKGROUND_THREAD", 1) != 0;
    const double patience = 10 + 5 * (double)(decay > 0 ? decay : 0) / 1000;
    uint64_t random = seed;
    /* The helper starts some time after a fork, by a thread that frees a block. */
    usleep(300000);
    come_and_go(&random, 3000);
    if (decay >= 0 && thread && !COMES(free_and_resident() <= (long long)(4 * MIB), patience)) {
        failures++;
        fprintf(stderr, "after %.0f s %lld bytes in pools and %lld in empty ones are free and "
                        "resident; %d threads\n", patience, stat_of("resident", "free_in_pools"),
                stat_of("resident", "empty_pools"), threads_now());
    }
    CHECK(COMES(threads_now() == 1, patience));
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

/* Resident bytes, exactly, that neither the statistics of the library nor those of the C
 * library explain; after a trim. */
static long long unexplained(void)
{
    malloc_trim(0);
    obmalloc_trim(0);
    read_stats();
    const char *rss = strstr(text_of("/proc/self/smaps_rollup"), "Rss:");
    CHECK(rss != NULL);
    return (rss ? atoll(rss + 4) * 1024 : 0) - stat_of("resident", "total") -
           stat_of("libc", "in_use");
}

/* One in a hundred of many small blocks stays, and so do all arenas: the resident memory must
 * then be what the statistics report, as it is without blocks. */
static long long must_be_explained(void)
{
    enum { SPREAD = 100000 };
    static struct block blocks[SPREAD];
    uint64_t random = seed_of(9, sums[OPERATIONS]);
    for (int turn = 0; turn < 2; turn++) /* the second time, its own table is resident */
        for (int i = 0; i < SPREAD; i++) {
            give(&blocks[i]);
            take(&blocks[i], &obj, random_below(&random, 400), (uint64_t)i);
        }
    for (int i = 0; i < SPREAD; i++)
        if (i % 100)
            give(&blocks[i]);
    const long long spread = unexplained();
    for (int i = 0; i < SPREAD; i++)
        give(&blocks[i]);
    const long long more = spread - unexplained();
    if (more > (long long)MIB) {
        failures++;
        fprintf(stderr, "%lld resident bytes are not in the statistics\n", more);
    }
    add_counts();
    return more;
}

static void say_cycle(int cycle, size_t idle, long long more)
{
    printf("{\"cycle\": %d, \"rss_idle\": %zu, \"rss\": %zu, \"ours\": %lld, \"metadata\": %lld, "
           "\"from_os\": %lld, \"magazines\": %lld, \"arenas\": %lld, \"live\": %lld, "
           "\"unexplained\": %lld",
           cycle, idle, resident(), stat_of("resident", "total"), stat_of("resident", "metadata"),
           stat_of("bytes", "from_os"), stat_of("bytes", "in_magazines"),
           stat_of("arenas", "in_use") + stat_of("arenas", "empty"),
           total_of_classes("blocks_live") + stat_of("large", "blocks_live"), more);
    for (int i = 0; i < COUNTS; i++)
        printf(", \"%s\": %lu", count_names[i], sums[i]);
    printf(", \"failures\": %d}\n", (int)failures);
}

static void run_cycle(int cycle, double length)
{
    by_stripes(make_survivors);
    run_roles(length);
    for (int i = 0; i < SURVIVORS; i++)
        look(&survivors[i]);
    must_be_live("at the end of a cycle");
    fork_at_rest();
    by_stripes(end_survivors);
    must_be_live("all freed");
    malloc_trim(0);
    after_a_while();
    const size_t idle = resident();
    const long long more = must_be_explained();
    must_be_live("trimmed");
    const long long kept = free_and_resident();
    if (kept != 0 || stat_of("bytes", "in_magazines") != 0) {
        failures++;
        fprintf(stderr, "trimmed: %lld bytes are free and resident, %lld in magazines\n", kept,
                stat_of("bytes", "in_magazines"));
    }
    say_cycle(cycle, idle, more);
}

int main(int argc, char **argv)
{
    pthread_attr_t attributes;
    setvbuf(stdout, NULL, _IOLBF, 0);
    share_counts();
    pthread_attr_init(&attributes); /* small stacks: the C library keeps some */
    pthread_attr_setstacksize(&attributes, 512 << 10);
    pthread_setattr_default_np(&attributes);
    if (argc == 3) {
        live_after_exec(strtoull(argv[2], NULL, 10));
        return exit_status();
    }
    if (argc != 4)
        return fprintf(stderr, "soak SEED CYCLES SECONDS\n"), 2;
    seed = strtoull(argv[1], NULL, 10);
    pthread_key_create(&last_will, at_thread_end);
    for (int cycle = 1; cycle <= atoi(argv[2]) && failures == 0; cycle++)
        run_cycle(cycle, atof(argv[3]));
    return exit_status();
}
