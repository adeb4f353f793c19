/* ways: so a pre host valgrind
 *
 * The debug hooks: the bytes around a block, the bytes written into it when it is allocated,
 * resized and freed, and the calls that the allocator below the hooks receives. That allocator is
 * a hook of the test. */
#include "hooks.h"

#if defined HOST_CPYTHON && PY_VERSION_HEX < 0x03080000
enum { AROUND = 32 }; /* with a serial number at the end */
#else
enum { AROUND = 24 };
#endif
enum { CLEAN = 0xCD, DEAD = 0xDD, FORBIDDEN = 0xFD, LARGE = MEDIUM_MAX + 1 };

static const size_t sizes[] = {0,   1,   5,   8,   16,  63,   64,   65,    100,   127, 128,
                               129, 136, 200, 487, 488, 489,  512,  513,   1000,  5000,
                               MEDIUM_MAX - AROUND, MEDIUM_MAX, LARGE, 200000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static struct hook below[3];

static void set_up(void)
{
    FOR_EACH_DOMAIN(d)
        hook_on(&below[domain_of(d)], domain_of(d));
    PyMem_SetupDebugHooks();
}

static bool all_are(const void *bytes, size_t n, int byte)
{
    for (size_t i = 0; i < n; i++)
        if (((const unsigned char *)bytes)[i] != byte)
            return false;
    return true;
}

/* Size, letter and pad bytes on both sides. */
static bool dressed(const void *p, size_t n, char letter)
{
    const unsigned char *head = (const unsigned char *)p - 16;
    size_t size = 0;
    for (int i = 0; i < 8; i++)
        size = size << 8 | head[i];
    return size == n && head[8] == letter && all_are(head + 9, 7, FORBIDDEN) &&
           all_are((const char *)p + n, 8, FORBIDDEN);
}

static void made(void *argument)
{
    const struct domain *d = argument;
    struct hook *hook = &below[domain_of(d)];
    set_up();
    for (int i = 0; i < SIZES; i++) {
        size_t n = sizes[i];
        unsigned char *p = d->malloc(n);
        CHECK(last_was(hook, MALLOC, NULL, n + AROUND, 0) && hook->last.result == p - 16);
        CHECK(dressed(p, n, *d->name) && all_are(p, n, CLEAN) && (uintptr_t)p % 16 == 0);
        unsigned char *q = d->calloc(n, 3);
        CHECK(last_was(hook, CALLOC, NULL, 1, n * 3 + AROUND) && hook->last.result == q - 16);
        CHECK(dressed(q, n * 3, *d->name) && all_are(q, n * 3, 0));
        unsigned char *r = d->realloc(NULL, n);
        CHECK(last_was(hook, MALLOC, NULL, n + AROUND, 0) && hook->last.result == r - 16);
        CHECK(dressed(r, n, *d->name) && all_are(r, n, CLEAN));
        d->free(p);
        CHECK(last_was(hook, FREE, p - 16, 0, 0));
        d->free(q);
        d->free(r);
    }
    unsigned calls = hook->all;
    d->free(NULL);
    FACT("%s: %u calls, %u after free(NULL)", d->name, calls, hook->all);
}

/* Freed blocks reach the allocator below without a trace of their contents. */
static size_t size_given_back;

static void dead_all_over(struct hook *hook, void *p)
{
    CHECK(all_are(p, size_given_back + AROUND, DEAD));
}

static void freed(void *argument)
{
    const struct domain *d = argument;
    set_up();
    below[domain_of(d)].peek = dead_all_over;
    for (int i = 0; i < SIZES; i++)
        for (int way = 0; way < 3; way++) {
            size_given_back = sizes[i];
            void *p = way == 0   ? d->malloc(sizes[i])
                      : way == 1 ? d->calloc(1, sizes[i])
                                 : d->realloc(NULL, sizes[i]);
            fill(p, sizes[i], i);
            d->free(p);
        }
    FACT("%s: %u frees", d->name, below[domain_of(d)].calls[FREE]);
}

/* While the allocator below resizes a block, its ends are dead: 64 bytes each, or all of it up
 * to 128. */
static size_t resized_seed;

static void dead_at_the_ends(struct hook *hook, void *p)
{
    const char *head = p;
    size_t n = size_given_back;
    if (hook->last.function == FREE)
        return;
    if (n <= 128) {
        CHECK(all_are(head, n + AROUND, DEAD));
        return;
    }
    CHECK(all_are(head, 16 + 64, DEAD));
    CHECK(all_are(head + 16 + n - 64, 64 + AROUND - 16, DEAD));
    for (size_t i = 64; i < n - 64; i++)
        if ((unsigned char)head[16 + i] != (unsigned char)(resized_seed + i * 7 + (i >> 8))) {
            CHECK(!"the middle stays");
            break;
        }
}

static void resized(void *argument)
{
    const struct domain *d = argument;
    struct hook *hook = &below[domain_of(d)];
    set_up();
    hook->peek = dead_at_the_ends;
    for (int from = 0; from < SIZES; from++)
        for (int to = 0; to < SIZES; to++) {
            size_t n = sizes[from], m = sizes[to], least = n < m ? n : m;
            unsigned char *p = d->malloc(n);
            fill(p, n, resized_seed = from);
            size_given_back = n;
            unsigned char *q = d->realloc(p, m);
            CHECK(last_was(hook, REALLOC, p - 16, m + AROUND, 0) && hook->last.result == q - 16);
            CHECK(dressed(q, m, *d->name) && holds(q, least, from));
            CHECK(all_are(q + least, m - least, CLEAN));
            d->free(q);
        }
    FACT("%s: %u blocks resized", d->name, hook->calls[REALLOC]);
}

/* The allocator below has no memory: the block is restored. */
static void no_memory(void *argument)
{
    const struct domain *d = argument;
    struct hook *hook = &below[domain_of(d)];
    set_up();
    for (int from = 0; from < SIZES; from++)
        for (int to = 0; to < SIZES; to += 3) {
            size_t n = sizes[from], m = sizes[to];
            void *p = from % 2 ? d->malloc(n) : d->calloc(n, 1);
            fill(p, n, from);
            hook->left = 0;
            CHECK(d->realloc(p, m) == NULL);
            CHECK(last_was(hook, REALLOC, (char *)p - 16, m + AROUND, 0));
            CHECK(dressed(p, n, *d->name) && holds(p, n, from));
            CHECK(d->malloc(m) == NULL && d->calloc(m, 1) == NULL && d->realloc(NULL, m) == NULL);
            hook->left = -1;
            p = d->realloc(p, m);
            CHECK(dressed(p, m, *d->name) && holds(p, n < m ? n : m, from));
            d->free(p);
        }
    FACT("%s: %u frees", d->name, hook->calls[FREE]);
}

static void too_much(void *argument)
{
    static volatile size_t most = LARGEST_REQUEST - AROUND;
    const struct domain *d = argument;
    struct hook *hook = &below[domain_of(d)];
    set_up();
    void *p = d->malloc(100);
    fill(p, 100, 6);
    unsigned before = hook->all;
    CHECK(d->malloc(most + 1) == NULL && d->malloc(most + AROUND) == NULL);
    CHECK(d->calloc(most + 1, 1) == NULL && d->calloc(1, most + AROUND) == NULL);
    CHECK(d->realloc(NULL, most + 1) == NULL && d->realloc(p, most + 1) == NULL);
    CHECK(d->malloc(SIZE_MAX) == NULL && d->realloc(p, SIZE_MAX) == NULL);
    CHECK(hook->all == before && dressed(p, 100, *d->name) && holds(p, 100, 6));
    CHECK(d->malloc(most) == NULL && last_was(hook, MALLOC, NULL, LARGEST_REQUEST, 0));
    CHECK(d->realloc(p, most) == NULL && dressed(p, 100, *d->name) && holds(p, 100, 6));
    d->free(p);
    FACT("%s: %u calls", d->name, hook->all);
}

/* A large block of MEM or OBJ is dressed twice, because RAW's hooks are below. */
static void dressed_twice(void *argument)
{
    const struct domain *d = argument;
    struct hook *hook = &below[PYMEM_DOMAIN_RAW];
    set_up();
    char *p = d->malloc(LARGE);
    CHECK(last_was(hook, MALLOC, NULL, LARGE + 2 * AROUND, 0) && hook->last.result == p - 32);
    CHECK(dressed(p, LARGE, *d->name) && dressed(p - 16, LARGE + AROUND, 'r'));
    p = d->realloc(p, LARGE * 2);
    CHECK(last_was(hook, REALLOC, hook->last.p, LARGE * 2 + 2 * AROUND, 0));
    CHECK(dressed(p, LARGE * 2, *d->name) && dressed(p - 16, LARGE * 2 + AROUND, 'r'));
    d->free(p);
    CHECK(last_was(hook, FREE, p - 32, 0, 0));
    FACT("%s: raw sees %u calls", d->name, hook->all);
}

/* Set up again: nothing changes where the hooks are on top; they are added where another
 * allocator was set since. */
static void again(void)
{
    PyMemAllocatorEx first[3], once[3], now;
    FOR_EACH_DOMAIN(d)
        PyMem_GetAllocator(domain_of(d), &first[domain_of(d)]);
    set_up();
    FOR_EACH_DOMAIN(d)
        PyMem_GetAllocator(domain_of(d), &once[domain_of(d)]);
    PyMem_SetupDebugHooks();
    FOR_EACH_DOMAIN(d) {
        PyMem_GetAllocator(domain_of(d), &now);
        CHECK(same_table(&now, &once[domain_of(d)]));
        CHECK(now.ctx != NULL && !same_table(&now, &first[domain_of(d)]));
        d->free(d->malloc(10));
        FACT("%s: %u calls", d->name, below[domain_of(d)].all);
    }
    FOR_EACH_DOMAIN(d) {
        struct hook *hook = &below[domain_of(d)];
        PyMem_SetAllocator(domain_of(d), &first[domain_of(d)]);
        d->free(d->malloc(10));
        CHECK(hook->all == 2); /* neither hook is there */
        hook_on(hook, domain_of(d));
        void *p = d->malloc(10);
        CHECK(last_was(hook, MALLOC, NULL, 10, 0));
        d->free(p);
        PyMem_SetupDebugHooks();
        p = d->malloc(10);
        CHECK(last_was(hook, MALLOC, NULL, 10 + AROUND, 0) && dressed(p, 10, *d->name));
        d->free(p);
        PyMem_GetAllocator(domain_of(d), &now);
        CHECK(same_table(&now, &once[domain_of(d)]));
        p = now.realloc(now.ctx, now.malloc(now.ctx, 20), 30); /* by hand */
        CHECK(dressed(p, 30, *d->name));
        d->free(p);
    }
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &once[PYMEM_DOMAIN_MEM]); /* the letter is in its ctx */
    void *p = obj.malloc(10);
    CHECK(dressed(p, 10, 'm') && last_was(&below[PYMEM_DOMAIN_MEM], MALLOC, NULL, 10 + AROUND, 0));
    mem.free(p);
}

static void in_each_domain(void (*body)(void *))
{
    FOR_EACH_DOMAIN(d)
        CHECK(in_child(body, (void *)d) == 0);
}

static void all_made(void) { in_each_domain(made); }
static void all_freed(void) { in_each_domain(freed); }
static void all_resized(void) { in_each_domain(resized); }
static void all_without_memory(void) { in_each_domain(no_memory); }
static void all_too_much(void) { in_each_domain(too_much); }

static void large_blocks(void)
{
    CHECK(in_child(dressed_twice, (void *)&mem) == 0);
    CHECK(in_child(dressed_twice, (void *)&obj) == 0);
}

CASES({"layout-made", all_made},
      {"layout-freed", all_freed},
      {"layout-resized", all_resized},
      {"layout-no-memory", all_without_memory},
      {"layout-too-much", all_too_much},
      {"layout-of-large-blocks", large_blocks},
      {"layout-set-up-again", again});
