/* The program of a fake host: allocates, resizes and frees, alternately from the host's own code
 * and from here, as an extension does, so that every block passes between both; checks contents,
 * prints the host's counts as JSON. */
#include "fake_python.h"

#include <stdio.h>
#include <string.h>

#define COUNT 3000

struct way {
    void *(*malloc)(size_t n);
    void *(*realloc)(void *p, size_t n);
    void (*free)(void *p);
};

static const struct way inside = {host_malloc, host_realloc, host_free};
static const struct way outside = {PyObject_Malloc, PyObject_Realloc, PyObject_Free};
static const struct way memory = {PyMem_Malloc, PyMem_Realloc, PyMem_Free};

static size_t size_of(int i) { return (size_t)(i * 7) % 500; }

static int holds(const unsigned char *p, int value, size_t n)
{
    while (n > 0 && p[n - 1] == (unsigned char)value)
        n--;
    return n == 0;
}

/* Three bits of i choose the side that allocates, resizes and frees. */
static int round_trip(const struct way *one, const struct way *other)
{
    static unsigned char *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = (i & 1 ? one : other)->malloc(size_of(i));
        if (blocks[i] == NULL)
            return 1;
        memset(blocks[i], i, size_of(i));
    }
    for (int i = 0; i < COUNT; i += 3) {
        const struct way *way = i & 2 ? one : other;
        size_t n = size_of(i), m = (n * 5) % 512;
        unsigned char *p = way->realloc(blocks[i], m);
        if (p == NULL || !holds(p, i, n < m ? n : m))
            return 2;
        memset(p, i, m);
        blocks[i] = way->realloc(p, n);
        if (blocks[i] == NULL || !holds(blocks[i], i, n < m ? n : m))
            return 3;
        memset(blocks[i], i, n);
    }
    for (int i = 0; i < COUNT; i++) {
        if (!holds(blocks[i], i, size_of(i)))
            return 4;
        (i & 4 ? one : other)->free(blocks[i]);
    }
    one->free(NULL);
    other->free(NULL);
    return 0;
}

int main(void)
{
    int failed = round_trip(&inside, &outside);
    if (failed == 0)
        failed = 10 * round_trip(&memory, &memory);
    printf("{\"mallocs\": %d, \"reallocs\": %d, \"frees\": %d, \"foreign\": %d, "
           "\"table_writes\": %d}\n", host_counts.mallocs, host_counts.reallocs,
           host_counts.frees, host_counts.foreign, host_counts.table_writes);
    return failed;
}
