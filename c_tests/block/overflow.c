/* ways: so a pre host valgrind
 *
 * Requests above PY_SSIZE_T_MAX and products that overflow give NULL in all three domains; a
 * failed realloc leaves the block as it was. Attackers look for the wrapped product. */
#include "harness.h"
#include <errno.h>

/* NULL with errno set, as the C library's malloc does; CPython's functions do not set it. */
static bool refused(void *p)
{
#ifndef HOST_CPYTHON
    CHECK(errno == ENOMEM);
#endif
    errno = 0;
    return p == NULL;
}

/* volatile, so that the compiler does not complain about the sizes */
static volatile size_t most = LARGEST_REQUEST;
static volatile size_t two_62 = (size_t)1 << 62;
static volatile size_t two_32 = (size_t)1 << 32;

static void check_malloc(const struct domain *d)
{
    CHECK(refused(d->malloc(most + 1)));
    CHECK(refused(d->malloc(most + 2)));
    CHECK(refused(d->malloc(SIZE_MAX - 15)));
    CHECK(refused(d->malloc(SIZE_MAX)));
    /* allowed by the rule, but no machine has that much */
    CHECK(refused(d->malloc(most)));
    CHECK(refused(d->malloc(most - 4096)));
    CHECK(refused(d->malloc(two_62)));
}

static void check_calloc(const struct domain *d)
{
    CHECK(refused(d->calloc(most + 1, 1)));
    CHECK(refused(d->calloc(1, most + 1)));
    CHECK(refused(d->calloc(most / 2 + 1, 2)));
    CHECK(refused(d->calloc(2, most / 2 + 1)));
    CHECK(refused(d->calloc(most / 3 + 1, 3)));
    CHECK(refused(d->calloc(two_32, two_32))); /* product wraps to 0 */
    CHECK(refused(d->calloc(two_32, two_32 + 1)));
    CHECK(refused(d->calloc(two_62 + 1, 4))); /* product wraps to 4 */
    CHECK(refused(d->calloc(SIZE_MAX, SIZE_MAX)));
    CHECK(refused(d->calloc(two_62, 1)));

    void *p = d->calloc(SIZE_MAX, 0), *q = d->calloc(0, SIZE_MAX);
    CHECK(p != NULL && q != NULL && p != q);
    d->free(p);
    d->free(q);
}

static void check_realloc(const struct domain *d)
{
    static const size_t sizes[] = {1, 16, 100, 512, 513, 4000, 32768, 32769, 200000};
    const size_t impossible[] = {most + 1, SIZE_MAX, SIZE_MAX - 15, two_62, most};

    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++)
        CHECK(refused(d->realloc(NULL, impossible[i])));
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        void *p = d->malloc(sizes[s]);
        fill(p, sizes[s], s);
        for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
            CHECK(refused(d->realloc(p, impossible[i])));
            CHECK(holds(p, sizes[s], s));
        }
        p = d->realloc(p, sizes[s] + 1000); /* still a good block */
        CHECK(p != NULL && holds(p, sizes[s], s));
        d->free(p);
    }
}

static void overflow(void)
{
    FOR_EACH_DOMAIN(d) {
        FACT("domain %s", d->name);
        STEP("malloc of too much") check_malloc(d);
        STEP("calloc of too much") check_calloc(d);
        STEP("realloc to too much") check_realloc(d);
    }
}

CASES({"overflow", overflow});
