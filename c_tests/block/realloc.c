/* ways: so a pre host valgrind
 *
 * realloc keeps contents, through random chains of growth and shrinkage across small, medium and
 * large, in each domain and between MEM and OBJ; and it stays in place where CPython's does,
 * because programs were tuned to that. */
#include "harness.h"

enum { SLOTS = 200, STEPS = 20000 };

struct slot {
    void *p;
    size_t n, seed;
};

static size_t random_size(uint64_t *random)
{
    switch (random_below(random, 16)) {
    case 0: return random_below(random, 200000); /* large, or anything */
    case 1:
    case 2:
    case 3: return random_below(random, MEDIUM_MAX + 100);
    case 4: return SMALL_MAX - 8 + random_below(random, 16);
    case 5: return random_below(random, 3);
    default: return random_below(random, SMALL_MAX + 1);
    }
}

/* `other` differs from `d` only to cross between MEM and OBJ. */
static void chains(const struct domain *d, const struct domain *other)
{
    static struct slot slots[SLOTS];
    uint64_t random = 88172645463325252u;
    unsigned bad = 0;
    for (int i = 0; i < SLOTS; i++)
        slots[i] = (struct slot){NULL, 0, 0};
    for (size_t step = 0; step < STEPS; step++) {
        struct slot *s = &slots[random_below(&random, SLOTS)];
        const struct domain *by = random_below(&random, 2) ? d : other;
        size_t n = random_size(&random);
        if (random_below(&random, 8) == 0) {
            by->free(s->p);
            s->p = by->malloc(n);
        } else {
            void *moved = by->realloc(s->p, n);
            bad += moved == NULL || !holds(moved, n < s->n ? n : s->n, s->seed);
            s->p = moved;
        }
        *s = (struct slot){s->p, n, step};
        fill(s->p, n, step);
    }
    for (int i = 0; i < SLOTS; i++) {
        bad += !holds(slots[i].p, slots[i].n, slots[i].seed);
        d->free(slots[i].p);
    }
    CHECK(bad == 0);
    FACT("%s/%s: %d steps, %u blocks lost their contents", d->name, other->name, STEPS, bad);
}

static void in_place(const struct domain *d)
{
    unsigned moved = 0, lost = 0;
    for (size_t n = 512; n >= 385; n--) { /* 4n > 3 * 512: not worth a copy */
        void *p = d->malloc(512);
        fill(p, 512, n);
        void *q = d->realloc(p, n);
        moved += q != p;
        lost += !holds(q, n, n);
        d->free(q);
    }
    for (size_t n = 384; n > 0; n--) { /* may move, and then copies all */
        void *p = d->malloc(512);
        fill(p, 512, n);
        p = d->realloc(p, n);
        lost += !holds(p, n, n);
        d->free(p);
    }
    for (size_t class = 16; class <= 512; class += 16) { /* room to grow */
        size_t least = class - 15 > class * 3 / 4 ? class - 15 : class * 3 / 4 + 1;
        void *p = d->malloc(least);
        fill(p, least, class);
        for (size_t n = least; n <= class; n++) {
            void *q = d->realloc(p, n);
            moved += q != p;
            lost += !holds(q, least, class);
            p = q;
        }
        d->free(p);
    }
    CHECK(moved == 0 && lost == 0);
    FACT("%s: %u moved that should stay, %u lost their contents", d->name, moved, lost);
}

static void to_nothing_and_back(const struct domain *d)
{
    static const size_t sizes[] = {0, 1, 512, 513, 5000, 32768, 32769, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p = d->realloc(NULL, sizes[i]);
        void *other = d->malloc(sizes[i]);
        fill(p, sizes[i], i);
        p = d->realloc(p, 0); /* gives up the old block, yet is a block */
        CHECK(p != NULL && p != other);
        p = d->realloc(p, 300);
        fill(p, 300, i);
        p = d->realloc(p, 60000);
        CHECK(holds(p, 300, i));
        d->free(p);
        d->free(other);
    }
}

static void chains_in_one_domain(void)
{
    FOR_EACH_DOMAIN(d)
        chains(d, d);
}

static void chains_across_domains(void)
{
    chains(&mem, &obj);
}

static void stays_in_place(void)
{
    in_place(&mem);
    in_place(&obj);
}

static void realloc_to_0(void)
{
    FOR_EACH_DOMAIN(d)
        to_nothing_and_back(d);
}

CASES({"realloc-chains-in-one-domain", chains_in_one_domain},
      {"realloc-chains-across-mem-and-obj", chains_across_domains},
      {"realloc-in-place", stays_in_place},
      {"realloc-to-0", realloc_to_0});
