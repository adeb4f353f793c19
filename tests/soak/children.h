/* Forked children compare inherited blocks, allocate and free, meet memory limits and refused
 * requests, start threads, fork again, and end in every way. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include "failing.h"
#include <sys/resource.h>

enum { SURVIVORS = 4000, CHILD_DEADLINE = 60 };

/* Blocks that stay unchanged while roles run; all children compare them. */
static struct block survivors[SURVIVORS];

/* The child ends with status 0 before the deadline. */
static void must_end_well(pid_t pid, const char *who)
{
    int status = -1;
    if (pid > 0 && !COMES(waitpid(pid, &status, WNOHANG) != 0, CHILD_DEADLINE)) {
        fprintf(stderr, "%s hangs: killed\n", who);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    if (status != 0)
        fprintf(stderr, "%s: pid %d, status %#x\n", who, (int)pid, status);
    CHECK(pid > 0 && status == 0);
}

/* Allocates, resizes and frees blocks. */
static void come_and_go(uint64_t *random, size_t turns)
{
    enum { FEW = 400 };
    struct block blocks[FEW] = {{0}};
    for (; turns > 0; turns--) {
        struct block *block = &blocks[random_below(random, FEW)];
        if (block->p == NULL)
            take_any(block, random);
        else if (random_below(random, 3) == 0)
            change(block, random);
        else
            give(block);
    }
    for (int i = 0; i < FEW; i++)
        give(&blocks[i]);
}

static void *come_and_go_in_thread(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    my[THREADS]++;
    come_and_go(&random, 2000);
    add_counts();
    return NULL;
}

static void in_threads(int n, uint64_t *random)
{
    pthread_t threads[8];
    for (int i = 0; i < n; i++) {
        void *seed = (void *)(uintptr_t)(1 + random_below(random, 1 << 30));
        CHECK(pthread_create(&threads[i], NULL, come_and_go_in_thread, seed) == 0);
    }
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

/* ---- memory limits ---- */

static void limit_to(rlim_t bytes)
{
    struct rlimit limits;
    CHECK(getrlimit(RLIMIT_AS, &limits) == 0);
    limits.rlim_cur = bytes < limits.rlim_max ? bytes : limits.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &limits) == 0);
}

/* Allocates until a request is refused; then all blocks are compared and freed, three times. */
static void run_into_limit(uint64_t *random)
{
    enum { MOST = 20000 };
    static struct block blocks[MOST];
    const rlim_t mapped = strtoul(text_of("/proc/self/statm"), NULL, 10) *
                          (rlim_t)sysconf(_SC_PAGESIZE);
    may_fail = true;
    for (int turn = 0; turn < 3; turn++) { /* limits of 0 to 7 MiB more than is mapped */
        limit_to(mapped + ((rlim_t)1 << 20) * random_below(random, 8));
        int n = 0;
        while (n < MOST && take_any(&blocks[n], random))
            n++;
        for (int i = 0; i < n; i += 7)
            change(&blocks[i], random);
        while (n > 0)
            give(&blocks[--n]);
    }
    limit_to(RLIM_INFINITY);
    may_fail = false;
    my[LIMITS]++;
    come_and_go(random, 1000);
}

static void run_into_refusals(uint64_t *random)
{
    begin_to_fail(2);
    come_and_go(random, 3000);
    in_threads(2, random);
    fail_no_more();
    come_and_go(random, 1000);
}

/* ---- a child's life ---- */

static void fork_once(uint64_t *random, int depth);

static void look_at_survivors(size_t one_in, uint64_t *random)
{
    for (size_t i = random_below(random, one_in); i < SURVIVORS; i += one_in)
        if (survivors[i].p)
            look(&survivors[i]);
}

static void live_as_child(uint64_t *random, int depth)
{
    look_at_survivors(16, random);
    come_and_go(random, 500);
    for (int i = 0; i < SURVIVORS / 20; i++) /* its copies of them */
        give(&survivors[random_below(random, SURVIVORS)]);
    switch (random_below(random, 10)) {
    case 0: run_into_limit(random); break;
    case 1: run_into_refusals(random); break;
    case 2: in_threads(3, random); break;
    case 3: my[TRIMS]++, obmalloc_trim(random_below(random, 4) * MIB); break;
    case 4: my[TRIMS]++, obmalloc_before_fork(); /* falls through */
    case 5: case 6: if (depth < 3) fork_once(random, depth + 1); break;
    default: break;
    }
    look_at_survivors(16, random);
    come_and_go(random, 500);
}

static void end_as_child(uint64_t *random)
{
    const size_t way = random_below(random, 8);
    char seed[32];
    my[EXECS] += way == 0;
    add_counts();
    if (failures || way > 4)
        _exit(exit_status());
    if (way > 0)
        exit(exit_status());
    snprintf(seed, sizeof seed, "%zu", 1 + random_below(random, 1 << 30));
    execl("/proc/self/exe", "soak", "exec", seed, (char *)NULL);
    _exit(127);
}

static void fork_once(uint64_t *random, int depth)
{
    my[FORKS]++;
    const size_t seed = 1 + random_below(random, 1 << 30);
    const int before = failures;
    const pid_t pid = fork();
    if (pid == 0) {
        uint64_t childs = seed;
        failures -= before;
        memset(my, 0, sizeof my);
        live_as_child(&childs, depth);
        end_as_child(&childs);
    }
    must_end_well(pid, depth ? "a child's child" : "a child");
}

/* After exec: requests are refused from the first one on, in several threads. */
static void live_after_exec(uint64_t random)
{
    alarm(CHILD_DEADLINE - 10);
    begin_to_fail(1 + (int)random_below(&random, 4));
    in_threads(3, &random);
    come_and_go(&random, 2000);
    fail_no_more();
    in_threads(3, &random);
    read_stats();
    CHECK(total_of_classes("blocks_live") == 0 && stat_of("large", "blocks_live") == 0);
}

#endif
