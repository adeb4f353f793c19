/* ways: so a pre host valgrind
 *
 * Every block is aligned to 16 bytes, calloc clears recycled memory too, and requests for 0 bytes
 * give distinct blocks. SSE code and long doubles in extension types depend on the first, all of
 * CPython on the others. */
#include "harness.h"

static bool aligned(const void *p)
{
    return p != NULL && (uintptr_t)p % 16 == 0;
}

static bool all_zero(const unsigned char *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* All small sizes, then ever wider steps through medium into large. */
static size_t next_size(size_t n)
{
    return n < 600 ? n + 1 : n + n / 13;
}

static void check_alignment(const struct domain *d)
{
    unsigned sizes = 0, odd = 0;
    for (size_t n = 0; n < 300000; n = next_size(n)) {
        void *p[5];
        for (int i = 0; i < 3; i++)
            odd += !aligned(p[i] = d->malloc(n));
        odd += !aligned(p[3] = d->calloc(1, n));
        odd += !aligned(p[4] = d->realloc(NULL, n));
        odd += !aligned(p[4] = d->realloc(p[4], n + 40));
        odd += !aligned(p[4] = d->realloc(p[4], n / 2));
        for (int i = 0; i < 5; i++)
            d->free(p[i]);
        sizes++;
    }
    CHECK(odd == 0);
    FACT("%s: %u sizes, %u blocks not aligned to 16", d->name, sizes, odd);
}

static void check_zero(const struct domain *d)
{
    unsigned dirty = 0;
    for (size_t n = 1; n < 100000; n = next_size(n)) {
        void *p[8];
        for (int i = 0; i < 8; i++)
            memset(p[i] = d->malloc(n), 0xA5, n);
        for (int i = 0; i < 8; i++)
            d->free(p[i]);
        for (int i = 0; i < 8; i++) {
            size_t size = i % 2 && n % 5 == 0 ? 5 : 1;
            p[i] = d->calloc(n / size, size);
            dirty += !all_zero(p[i], n);
        }
        for (int i = 0; i < 8; i++)
            d->free(p[i]);
    }
    CHECK(dirty == 0);
    FACT("%s: %u blocks from calloc not zero", d->name, dirty);
}

static void check_nothing(const struct domain *d)
{
    enum { N = 400 };
    void *p[N];
    unsigned null = 0, same = 0;
    for (int i = 0; i < N; i++) {
        switch (i % 5) {
        case 0: p[i] = d->malloc(0); break;
        case 1: p[i] = d->calloc(0, 0); break;
        case 2: p[i] = d->calloc(0, 8); break;
        case 3: p[i] = d->calloc(8, 0); break;
        case 4: p[i] = d->realloc(NULL, 0); break;
        }
        null += p[i] == NULL;
        for (int j = 0; j < i; j++)
            same += p[i] == p[j];
    }
    for (int i = 0; i < N; i++)
        d->free(p[i]);
    CHECK(null == 0 && same == 0);
    FACT("%s: %d requests for nothing, %u NULL, %u alike", d->name, N, null, same);
}

static void alignment(void)
{
    FOR_EACH_DOMAIN(d)
        check_alignment(d);
}

static void calloc_clears(void)
{
    FOR_EACH_DOMAIN(d)
        check_zero(d);
}

static void requests_for_nothing(void)
{
    FOR_EACH_DOMAIN(d)
        check_nothing(d);
}

CASES({"alignment", alignment},
      {"calloc-clears", calloc_clears},
      {"requests-for-nothing", requests_for_nothing});
