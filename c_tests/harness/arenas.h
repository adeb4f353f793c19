/* An arena allocator above another one that records its arenas; it can be made to fail, or to
 * call a function during each call. */
#ifndef ARENAS_H
#define ARENAS_H

#include "harness.h"

enum { ARENAS = 4000, BLOCK = 512 };

struct arena {
    char *start;
    size_t size;
    bool live;
};

struct source {
    PyObjectArenaAllocator below;
    void (*meanwhile)(void); /* called in each call, may be NULL */
    long left;               /* that many arenas may be had yet; negative: all */
    pthread_mutex_t lock;
    struct arena arenas[ARENAS];
    unsigned asked, made, freed, live, not_ours;
};

static struct source source;

static inline void *source_alloc(void *ctx, size_t size)
{
    struct source *s = ctx;
    CHECK(s == &source);
    if (s->meanwhile)
        s->meanwhile();
    pthread_mutex_lock(&s->lock);
    void *p = s->left && s->made < ARENAS ? s->below.alloc(s->below.ctx, size) : NULL;
    s->asked++;
    s->left -= s->left > 0;
    if (p) {
        s->arenas[s->made++] = (struct arena){p, size, true};
        s->live++;
    }
    pthread_mutex_unlock(&s->lock);
    return p;
}

static inline void source_free(void *ctx, void *p, size_t size)
{
    struct source *s = ctx;
    CHECK(s == &source);
    if (s->meanwhile)
        s->meanwhile();
    pthread_mutex_lock(&s->lock);
    struct arena *a = s->arenas;
    while (a < s->arenas + s->made && !(a->live && a->start == p && a->size == size))
        a++;
    if (a < s->arenas + s->made) {
        a->live = false;
        s->freed++;
        s->live--;
    } else {
        s->not_ours++; /* made before, by what was there then */
    }
    s->below.free(s->below.ctx, p, size);
    pthread_mutex_unlock(&s->lock);
}

/* From now on arenas come from `source`, which takes them from `below`. */
static inline void source_over(PyObjectArenaAllocator below)
{
    source.below = below;
    source.left = -1;
    pthread_mutex_init(&source.lock, NULL);
    PyObjectArenaAllocator table = {&source, source_alloc, source_free};
    PyObject_SetArenaAllocator(&table);
}

static inline PyObjectArenaAllocator current_source(void)
{
    PyObjectArenaAllocator table;
    PyObject_GetArenaAllocator(&table);
    return table;
}

static inline bool from_source(const void *p, size_t n)
{
    for (const struct arena *a = source.arenas; a < source.arenas + source.made; a++)
        if (a->live && (char *)p >= a->start && (char *)p + n <= a->start + a->size)
            return true;
    return false;
}

/* Allocates the free blocks of this size in older arenas, for good: until a new arena is
 * requested, and some more, because a thread may hold blocks in reserve. */
static inline void use_up(size_t n)
{
    unsigned asked = source.asked;
    for (int i = 0; i < 1000000 && source.asked == asked; i++)
        CHECK(obj.malloc(n) != NULL);
    CHECK(source.asked > asked);
    for (int i = 0; i < 1000; i++)
        CHECK(obj.malloc(n) != NULL);
}

#endif
