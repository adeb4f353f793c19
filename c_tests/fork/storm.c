/* ways: so a pre tsan
 *
 * Many forks, by two threads, while others allocate, free and trim and pages are returned: by the
 * helper thread, which every fork ends, by ticks, or at once. Each child allocates in every class;
 * some trim, some fork again. None may hang.
 *
 * FORK_STORM=20000 in the environment is the number of forks of each case. */
#include "resident.h"

enum { FORKERS = 2, WORKERS = 2, USUAL = 100 };
/* Seconds after which a child is said to hang; fewer for a child's child. */
enum { DEADLINE = 30, INNER_DEADLINE = 20 };

static atomic_bool stop;
static atomic_int seen; /* how often there was a helper */

static int forks(void)
{
    const char *text = getenv("FORK_STORM");
    return text ? atoi(text) : USUAL;
}

/* ---- who is busy meanwhile ---- */

/* Allocates and frees some MiB, so that there are always pages to return. */
static void *worker(void *argument)
{
    enum { N = 24000 };
    void **p = calloc(N, sizeof *p);
    size_t seed = (uintptr_t)argument, bad = 0;
    for (size_t round = 0; !stop; round++) {
        const struct domain *domain = round % 2 ? &obj : &mem;
        for (size_t i = 0; i < N; i++)
            fill(p[i] = domain->malloc(200 + i % 400), 32, seed + i);
        for (size_t i = 0; i < N; i++) {
            bad += !holds(p[i], 32, seed + i);
            domain->free(p[i]);
        }
        if (round % 16 == 0)
            obmalloc_trim(MIB);
    }
    CHECK(bad == 0);
    free(p);
    return argument;
}

static void *watcher(void *unused)
{
    for (; !stop; usleep(500))
        seen += helper_now() != 0;
    return unused;
}

/* ---- children ---- */

/* Whether the child has ended well, and in time. */
static bool ends_well(pid_t pid, const char *who, int number, int deadline)
{
    int status = -1;
    if (pid > 0 && !COMES(waitpid(pid, &status, WNOHANG) != 0, deadline)) {
        fprintf(stderr, "%s %d hangs: killed\n", who, number);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    if (status != 0)
        fprintf(stderr, "%s %d: pid %d, status %#x\n", who, number, (int)pid, status);
    return status == 0;
}

static void use_all_classes(const struct domain *domain)
{
    void *p[120];
    size_t n = 0;
    for (size_t i = 0; i < 120; i++, n += 8 + n / 12)
        fill(p[i] = domain->malloc(n % 33000), n % 33000 < 64 ? n % 33000 : 64, i);
    n = 0;
    for (size_t i = 0; i < 120; i++, n += 8 + n / 12) {
        CHECK(holds(p[i], n % 33000 < 64 ? n % 33000 : 64, i));
        domain->free(p[i]);
    }
}

static void a_childs_life(int number)
{
    use_all_classes(number % 2 ? &obj : &mem);
    if (number % 5 == 0)
        obmalloc_trim(0);
    if (number % 11 == 0) {
        const pid_t pid = fork();
        if (pid == 0) {
            use_all_classes(&obj);
            _exit(exit_status());
        }
        CHECK(ends_well(pid, "grandchild", number, INNER_DEADLINE));
    }
    if (number % 7 == 0)
        use_all_classes(&mem);
}

static void *forker(void *argument)
{
    const int begin = (int)(uintptr_t)argument, end = forks();
    for (int i = begin; i < end && failures == 0; i += FORKERS) {
        const pid_t pid = fork();
        if (pid == 0) {
            a_childs_life(i);
            _exit(exit_status());
        }
        CHECK(ends_well(pid, "child", i, DEADLINE));
        if (i % 16 < FORKERS)
            usleep(3000); /* time for a helper to start */
    }
    return argument;
}

static void storm(void)
{
    pthread_t workers[WORKERS], forkers[FORKERS], watching;
    alarm(forks() > USUAL ? 3000 : 50);
    const double begin = seconds();
    start_threads(WORKERS, workers, worker);
    CHECK(pthread_create(&watching, NULL, watcher, NULL) == 0);
    start_threads(FORKERS, forkers, forker);
    join_threads(FORKERS, forkers);
    stop = true;
    join_threads(WORKERS, workers);
    pthread_join(watching, NULL);
    read_stats();
    CHECK(total_of_classes("blocks_live") == 0);
    CHECK(stat_of("resident", "returned_total") > 0);
    fprintf(stderr, "%d forks in %.1f s, a helper seen %d times\n", forks(), seconds() - begin,
            seen);
}

static void with_a_helper(void)
{
    storm();
    CHECK(seen > 2); /* or nothing of this was tried */
}

static void without(void)
{
    storm();
    CHECK(seen == 0);
}

CASES({"storm-a-helper-after-each-millisecond", with_a_helper, ALL_POOLS "OBMALLOC_DECAY_MS=1"},
      {"storm-ticks-after-each-millisecond", without,
       ALL_POOLS "OBMALLOC_DECAY_MS=1 OBMALLOC_BACKGROUND_THREAD=0"},
      {"storm-at-once", without, ALL_POOLS "OBMALLOC_DECAY_MS=0"},
      {"storm-at-once-no-thread-allowed", without,
       ALL_POOLS "OBMALLOC_DECAY_MS=0 OBMALLOC_BACKGROUND_THREAD=0"},
      {"storm-as-usual", storm, ALL_POOLS "OBMALLOC_DECAY_MS=1000"},
      {"storm-as-usual-by-ticks", without,
       ALL_POOLS "OBMALLOC_DECAY_MS=1000 OBMALLOC_BACKGROUND_THREAD=0"});
