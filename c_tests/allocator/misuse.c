/* ways: so a pre
 *
 * Allocators with a missing function, and NULL for an allocator. CPython crashes then; the library
 * writes one line on stderr that begins with `obmalloc: ` and names the function, and aborts, when
 * the function is needed and not before. And blocks that are freed by an allocator that did not
 * allocate them. */
#include "hooks.h"

enum { SIZE = 100, LARGE = MEDIUM_MAX + 1 };

struct mistake {
    const char *name;
    const char *word; /* to be in the line */
    void (*make)(const struct mistake *m);
    const struct domain *d;
    int function;
};

static const char *const functions[] = {" malloc", " calloc", " realloc", " free"};

static void call(const struct domain *d, int function, void *p)
{
    switch (function) {
    case MALLOC: d->free(d->malloc(SIZE)); break;
    case CALLOC: d->free(d->calloc(1, SIZE)); break;
    case REALLOC: p = d->realloc(p, SIZE * 2); break;
    case FREE: d->free(p); break;
    }
}

static void set_without(PyMemAllocatorDomain domain, int function)
{
    PyMemAllocatorEx t;
    PyMem_GetAllocator(domain, &t);
    switch (function) {
    case MALLOC: t.malloc = NULL; break;
    case CALLOC: t.calloc = NULL; break;
    case REALLOC: t.realloc = NULL; break;
    case FREE: t.free = NULL; break;
    }
    PyMem_SetAllocator(domain, &t);
}

/* The three that are there work, and then the fourth is called. */
static void half_filled(const struct mistake *m)
{
    void *p = m->d->malloc(SIZE);
    fill(p, SIZE, 1);
    set_without(domain_of(m->d), m->function);
    if (m->function != MALLOC)
        CHECK(m->d->malloc(SIZE) != NULL); /* not freed: that may be missing */
    if (m->function != CALLOC)
        CHECK(m->d->calloc(SIZE, 1) != NULL);
    if (m->function != REALLOC)
        p = m->d->realloc(p, SIZE * 2);
    CHECK(holds(p, SIZE, 1));
    if (m->function != FREE)
        m->d->free(p), p = NULL;
    call(m->d, m->function, p);
}

/* A missing function of RAW is noticed by the domains above it, too. */
static void hole_below(const struct mistake *m)
{
    void *p = m->d->malloc(LARGE);
    m->d->free(m->d->malloc(SIZE));
    set_without(PYMEM_DOMAIN_RAW, m->function);
    m->d->free(m->d->malloc(SIZE)); /* of a pool */
    switch (m->function) {
    case MALLOC: p = m->d->malloc(LARGE); break;
    case CALLOC: p = m->d->calloc(LARGE, 1); break;
    case REALLOC: p = m->d->realloc(p, LARGE * 2); break;
    case FREE: m->d->free(p); break;
    }
}

static void under_debug_hooks(const struct mistake *m)
{
    set_without(domain_of(m->d), m->function);
    PyMem_SetupDebugHooks();
    void *p = m->function == MALLOC ? m->d->calloc(1, SIZE) : m->d->malloc(SIZE);
    call(m->d, m->function, p);
}

static void set_null(const struct mistake *m)
{
    PyMem_SetAllocator(domain_of(m->d), NULL);
}

static void get_null(const struct mistake *m)
{
    PyMem_GetAllocator(domain_of(m->d), NULL);
}

static void set_arena_null(const struct mistake *m)
{
    PyObject_SetArenaAllocator(NULL);
}

static void get_arena_null(const struct mistake *m)
{
    PyObject_GetArenaAllocator(NULL);
}

/* 40 MiB of blocks, then none: arenas are mapped and unmapped. */
static void half_filled_arenas(const struct mistake *m)
{
    enum { BLOCKS = 80000 };
    static void *blocks[BLOCKS];
    PyObjectArenaAllocator t;
    PyObject_GetArenaAllocator(&t);
    if (m->function == MALLOC)
        t.alloc = NULL;
    else
        t.free = NULL;
    PyObject_SetArenaAllocator(&t);
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = obj.malloc(512);
    for (int i = 0; i < BLOCKS; i++)
        obj.free(blocks[i]);
}

static void child(void *argument)
{
    const struct mistake *m = argument;
    m->make(m);
    fprintf(stderr, "survived\n");
}

static void ends(const struct mistake *m)
{
    char said[2000];
    int status = output_in_child(child, (void *)m, said, sizeof said);
    bool ok = ended_in_one_line(status, said) && strstr(said + strlen("obmalloc: "), m->word);
    CHECK(ok);
    FACT("%s, %s,%s: %s", m->name, m->d->name, functions[m->function], ok ? "ok" : said);
}

/* MEM or OBJ gets the allocator of RAW, as with PYTHONMALLOC=malloc, while blocks live. CPython
 * would pass them to the C library and die. */
static void raw_for_a_while(const struct domain *d)
{
    PyMemAllocatorEx first, c_library;
    PyMem_GetAllocator(domain_of(d), &first);
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &c_library);
    for (size_t n = 1; n < 70000; n += n < 600 ? 1 : 331) {
        void *p[4];
        for (int i = 0; i < 4; i++)
            fill(p[i] = d->malloc(n), n, n + i);
        PyMem_SetAllocator(domain_of(d), &c_library);
        d->free(p[0]);
        p[1] = d->realloc(p[1], n * 2);
        p[2] = d->realloc(p[2], n / 2);
        raw.free(p[3]);
        PyMem_SetAllocator(domain_of(d), &first);
        CHECK(holds(p[1], n, n + 1) && holds(p[2], n / 2, n + 2));
        p[1] = d->realloc(p[1], n * 3);
        CHECK(holds(p[1], n, n + 1));
        d->free(p[1]);
        d->free(p[2]);
    }
}

static void misuse(void)
{
    FOR_EACH_DOMAIN(d)
        for (int function = MALLOC; function <= FREE; function++) {
            const char *word = functions[function];
            ends(&(struct mistake){"half-filled", word, half_filled, d, function});
            ends(&(struct mistake){"under debug hooks", word, under_debug_hooks, d, function});
            if (d != &raw)
                ends(&(struct mistake){"hole below", word, hole_below, d, function});
        }
    FOR_EACH_DOMAIN(d) {
        ends(&(struct mistake){"set NULL", "PyMem_SetAllocator", set_null, d, MALLOC});
        ends(&(struct mistake){"get NULL", "PyMem_GetAllocator", get_null, d, MALLOC});
    }
    ends(&(struct mistake){"set NULL", "PyObject_SetArenaAllocator", set_arena_null, &obj, 0});
    ends(&(struct mistake){"get NULL", "PyObject_GetArenaAllocator", get_arena_null, &obj, 0});
    ends(&(struct mistake){"arenas", " alloc", half_filled_arenas, &obj, MALLOC});
    ends(&(struct mistake){"arenas", " free", half_filled_arenas, &obj, FREE});
}

static void raw_in_place_of_it(void)
{
    raw_for_a_while(&mem);
    raw_for_a_while(&obj);
}

CASES({"misuse", misuse, .reads_stderr = true}, {"misuse-raw-for-a-while", raw_in_place_of_it});
