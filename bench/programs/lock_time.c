/* How long a lock is held while pages are returned to the kernel: the program of `lock_time`.
 *
 * Linked against libobmalloc.so, with no CPython in the process. A round of page
 * return takes a class's lock for one pool at a time, so the time of a round divided
 * by the pools is the time of one hold and the walk to the next. Prints nanoseconds
 * per pool: with nothing to return, with the pages of every second 4 KiB (the most
 * calls of the kernel that a pool can need, eight), and with all pages but one. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern void *PyObject_Malloc(size_t n);
extern void PyObject_Free(void *p);
extern size_t obmalloc_trim(size_t keep);

enum { POOL = 64 << 10, PAGE = 4096, SIZE = 64, POOLS = 2000, BLOCKS = POOLS * (POOL / SIZE) };

static void *blocks[BLOCKS];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void fill(void)
{
    for (size_t i = 0; i < BLOCKS; i++)
        if (blocks[i] == NULL && (blocks[i] = PyObject_Malloc(SIZE)) != NULL)
            memset(blocks[i], 1, SIZE);
}

static int stays(uintptr_t p, int pattern)
{
    uintptr_t page = p % POOL / PAGE, last = (p + SIZE - 1) % POOL / PAGE;
    if (pattern == 1) /* a block that reaches into the next page would keep it */
        return page % 2 == 0 && last == page;
    return pattern == 0 || last == 0;
}

/* Nanoseconds per pool of a trim, after the blocks that are not kept were freed. */
static double round_of(int pattern, double *mib)
{
    fill();
    for (size_t i = 0; i < BLOCKS; i++)
        if (!stays((uintptr_t)blocks[i], pattern)) {
            PyObject_Free(blocks[i]);
            blocks[i] = NULL;
        }
    double began = now();
    *mib = obmalloc_trim(0) / 1048576.0;
    return (now() - began) / POOLS;
}

int main(void)
{
    static const char *const names[] = {"nothing to return", "every second page", "all pages but one"};
    printf("{");
    for (int pattern = 0; pattern < 3; pattern++) {
        double best = 1e18, mib = 0;
        for (int i = 0; i < 7; i++) {
            double time = round_of(pattern, &mib);
            best = time < best ? time : best;
        }
        printf("%s\"%s\": [%.0f, %.0f]", pattern ? ", " : "", names[pattern], best, mib);
    }
    printf("}\n");
    return 0;
}
