/* ways: so a pre
 *
 * OBMALLOC_ALIGN=8: sizes are rounded to 8 bytes, and blocks aligned to 8, in the domains that the
 * setting names; where the size is a multiple of 16, blocks are aligned to 16 as by default.
 * Blocks keep their contents and do not overlap, also where the domains are mixed. */
#include "harness.h"

enum { BLOCKS = 200, SMALL = 512 };

static size_t align_of(const struct domain *d, const char *setting)
{
    bool named = strcmp(setting, "8") == 0 || strncmp(setting, d->name, 3) == 0;
    return named ? 8 : 16;
}

/* The smallest distance of two blocks of a size is what a block takes. */
static size_t step(void *const *p)
{
    size_t least = SIZE_MAX;
    for (int i = 0; i < BLOCKS; i++)
        for (int j = 0; j < i; j++) {
            uintptr_t a = (uintptr_t)p[i], b = (uintptr_t)p[j];
            size_t apart = a > b ? a - b : b - a;
            if (apart < least)
                least = apart;
        }
    return least;
}

static void check_sizes(const struct domain *d, const char *setting)
{
    const size_t align = align_of(d, setting);
    unsigned wrong = 0;
    for (size_t n = 1; n <= SMALL; n++) {
        void *p[BLOCKS];
        const size_t size = (n + align - 1) / align * align;
        for (int i = 0; i < BLOCKS; i++) {
            p[i] = i % 2 ? d->malloc(n) : d->calloc(1, n);
            wrong += (uintptr_t)p[i] % (size % 16 ? 8 : 16) != 0;
            fill(p[i], n, i);
        }
        wrong += step(p) != size;
        for (int i = 0; i < BLOCKS; i++) {
            wrong += !holds(p[i], n, i);
            p[i] = d->realloc(p[i], n + 8);
            wrong += !holds(p[i], n, i);
            d->free(p[i]);
        }
    }
    CHECK(wrong == 0);
}

/* Each domain resizes and frees blocks of the other, whatever each rounds to. */
static void check_mixed(void)
{
    for (size_t n = 1; n <= SMALL; n += 7) {
        void *p = obj.malloc(n), *q = mem.malloc(n);
        fill(p, n, 1);
        fill(q, n, 2);
        p = mem.realloc(p, n + 30);
        q = obj.realloc(q, n + 30);
        CHECK(holds(p, n, 1) && holds(q, n, 2));
        mem.free(p);
        obj.free(q);
    }
}

static void packed(void)
{
    const char *setting = getenv("OBMALLOC_ALIGN");
    check_sizes(&obj, setting);
    check_sizes(&mem, setting);
    check_mixed();
}

CASES({"packed-to-8", packed, "OBMALLOC_ALIGN=8"},
      {"packed-obj", packed, "OBMALLOC_ALIGN=obj:8"},
      {"packed-mem", packed, "OBMALLOC_ALIGN=mem:8"},
      {"packed-to-16", packed, "OBMALLOC_ALIGN=16"},
      {"packed-to-no-known-size", packed, "OBMALLOC_ALIGN=7"});
