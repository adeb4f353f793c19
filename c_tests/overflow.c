/* Requests that cannot be: above PY_SSIZE_T_MAX, or whose product overflows,
 * give NULL in all three domains; a failed realloc leaves the block as it
 * was. The wrapped product is what attackers look for. */
#include "harness.h"

/* volatile, so that the compiler does not complain about the sizes */
static volatile size_t most = LARGEST_REQUEST;
static volatile size_t two_62 = (size_t)1 << 62;
static volatile size_t two_32 = (size_t)1 << 32;

static void check_malloc(const struct domain *d)
{
    CHECK(d->malloc(most + 1) == NULL);
    CHECK(d->malloc(most + 2) == NULL);
    CHECK(d->malloc(SIZE_MAX - 15) == NULL);
    CHECK(d->malloc(SIZE_MAX) == NULL);
    /* allowed by the rule, but no machine has that much */
    CHECK(d->malloc(most) == NULL);
    CHECK(d->malloc(most - 4096) == NULL);
    CHECK(d->malloc(two_62) == NULL);
}

static void check_calloc(const struct domain *d)
{
    CHECK(d->calloc(most + 1, 1) == NULL);
    CHECK(d->calloc(1, most + 1) == NULL);
    CHECK(d->calloc(most / 2 + 1, 2) == NULL);
    CHECK(d->calloc(2, most / 2 + 1) == NULL);
    CHECK(d->calloc(most / 3 + 1, 3) == NULL);
    CHECK(d->calloc(two_32, two_32) == NULL); /* product wraps to 0 */
    CHECK(d->calloc(two_32, two_32 + 1) == NULL);
    CHECK(d->calloc(two_62 + 1, 4) == NULL); /* product wraps to 4 */
    CHECK(d->calloc(SIZE_MAX, SIZE_MAX) == NULL);
    CHECK(d->calloc(two_62, 1) == NULL);

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
        CHECK(d->realloc(NULL, impossible[i]) == NULL);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        void *p = d->malloc(sizes[s]);
        fill(p, sizes[s], s);
        for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
            CHECK(d->realloc(p, impossible[i]) == NULL);
            CHECK(holds(p, sizes[s], s));
        }
        p = d->realloc(p, sizes[s] + 1000); /* still a good block */
        CHECK(p != NULL && holds(p, sizes[s], s));
        d->free(p);
    }
}

TEST_MAIN
{
    FOR_EACH_DOMAIN(d) {
        FACT("domain %s", d->name);
        CHECK_BODY("malloc of too much") check_malloc(d);
        CHECK_BODY("calloc of too much") check_calloc(d);
        CHECK_BODY("realloc to too much") check_realloc(d);
    }
}
