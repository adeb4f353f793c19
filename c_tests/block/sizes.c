/* ways: so a pre host
 *
 * Every size from 0 to 40000: the whole block can be written, first byte to last, and no two live
 * blocks overlap. An off-by-one would hide at the limits between classes, and between small,
 * medium and large. */
#include "harness.h"

enum { SIZES = 40001, RING = 150, TOGETHER = 5000 };

/* memset and memcmp rather than fill(): this goes over gigabytes. */
static void mark(unsigned char *p, size_t n, unsigned char byte)
{
    if (n > 0) {
        p[0] = p[n - 1] = 0;
        memset(p, byte, n);
    }
}

static bool marked(const unsigned char *p, size_t n, unsigned char byte)
{
    return n == 0 || (p[0] == byte && memcmp(p, p + 1, n - 1) == 0);
}

/* A window of live blocks moves over all sizes. */
static void window(const struct domain *d, size_t step)
{
    void *p[RING] = {NULL};
    size_t size[RING] = {0};
    unsigned char byte[RING] = {0};
    unsigned bad = 0, count = 0;
    for (size_t n = 0; n < SIZES; n += step, count++) {
        unsigned i = count % RING;
        bad += p[i] != NULL && !marked(p[i], size[i], byte[i]);
        d->free(p[i]);
        p[i] = d->malloc(size[i] = n);
        byte[i] = (unsigned char)(count % 251);
        mark(p[i], n, byte[i]);
    }
    for (int i = 0; i < RING; i++) {
        bad += p[i] != NULL && !marked(p[i], size[i], byte[i]);
        d->free(p[i]);
    }
    CHECK(bad == 0);
    FACT("%s: %u sizes in a moving window, %u bad", d->name, count, bad);
}

/* All blocks live at once, freed in another order, and once more in the freed memory. */
static void together(const struct domain *d)
{
    static void *p[TOGETHER];
    unsigned bad = 0;
    for (int round = 0; round < 2; round++) {
        for (size_t n = 0; n < TOGETHER; n++) {
            p[n] = d->malloc(n);
            mark(p[n], n, (unsigned char)(n % 253 + round));
        }
        for (size_t i = 0, n = 0; i < TOGETHER; i++) {
            n = (n + 1237) % TOGETHER; /* prime to 5000: visits them all */
            bad += !marked(p[n], n, (unsigned char)(n % 253 + round));
            d->free(p[n]);
        }
    }
    CHECK(bad == 0);
    FACT("%s: %d sizes at once, %u bad", d->name, TOGETHER, bad);
}

static void moving_window(void)
{
    window(&obj, 1);
    window(&mem, 3);
    window(&raw, 7);
}

static void all_at_once(void)
{
    FOR_EACH_DOMAIN(d)
        together(d);
}

CASES({"sizes-in-a-moving-window", moving_window}, {"sizes-at-once", all_at_once});
