/* ways: so a pre host valgrind
 *
 * MEM and OBJ are one allocator: a block may be allocated in one and resized or freed in the
 * other. A release build of CPython does not detect that, so extensions do it. RAW is separate;
 * live blocks of all three never overlap. */
#include "harness.h"

enum { N = 900 };

static size_t size_of(int i)
{
    return i < 600 ? (size_t)i : (size_t)(i - 590) * 150;
}

static void cross_free(const struct domain *from, const struct domain *to)
{
    static void *p[N];
    for (int i = 0; i < N; i++) {
        p[i] = i % 3 ? from->malloc(size_of(i)) : from->calloc(1, size_of(i));
        fill(p[i], size_of(i), i);
    }
    unsigned bad = 0;
    for (int i = 0; i < N; i++) {
        bad += !holds(p[i], size_of(i), i);
        (i % 2 ? to : from)->free(p[i]);
    }
    CHECK(bad == 0);
    FACT("%s to %s: %d blocks, %u bad", from->name, to->name, N, bad);
}

static void cross_realloc(const struct domain *from, const struct domain *to)
{
    unsigned bad = 0;
    for (int i = 0; i < N; i++) {
        size_t n = size_of(i), m = size_of((i * 7) % N);
        void *p = from->malloc(n);
        fill(p, n, i);
        p = to->realloc(p, m);
        bad += p == NULL || !holds(p, n < m ? n : m, i);
        from->free(p);
    }
    CHECK(bad == 0);
    FACT("%s to %s: %d blocks resized, %u bad", from->name, to->name, N, bad);
}

static void side_by_side(void)
{
    static void *p[3][N];
    unsigned bad = 0;
    for (int i = 0; i < N; i++)
        for (int d = 0; d < 3; d++)
            fill(p[d][i] = domains[d]->malloc(size_of(i)), size_of(i), i * 3 + d);
    for (int i = 0; i < N; i++)
        for (int d = 0; d < 3; d++) {
            bad += !holds(p[d][i], size_of(i), i * 3 + d);
            domains[d]->free(p[d][i]);
        }
    CHECK(bad == 0);
    FACT("three domains, %d blocks each, %u bad", N, bad);
}

static void free_in_the_other_domain(void)
{
    cross_free(&mem, &obj);
    cross_free(&obj, &mem);
}

static void resize_in_the_other_domain(void)
{
    cross_realloc(&mem, &obj);
    cross_realloc(&obj, &mem);
}

static void free_null(void)
{
    FOR_EACH_DOMAIN(d)
        d->free(NULL);
}

CASES({"free-in-the-other-domain", free_in_the_other_domain},
      {"resize-in-the-other-domain", resize_in_the_other_domain},
      {"domains-side-by-side", side_by_side},
      {"free-null", free_null});
