/* ways: so a pre host valgrind
 *
 * Allocators that a constructor of the program sets, before the library's own constructor where
 * there is an order: they stay set, whatever starts later. */
#include "arenas.h"
#include "hooks.h"

static struct hook early[3];
static void *block;

static __attribute__((constructor(101))) void set_tables(void)
{
    if (!is_case("set-in-a-constructor"))
        return;
    FOR_EACH_DOMAIN(d)
        hook_on(&early[domain_of(d)], domain_of(d));
    source_over(current_source());
    block = raw.malloc(100);
    fill(block, 100, 1);
}

static bool all_hooked(void)
{
    bool all = true;
    FOR_EACH_DOMAIN(d) {
        struct hook *hook = &early[domain_of(d)];
        void *p = d->malloc(100);
        all = all && last_was(hook, MALLOC, NULL, 100, 0) && hook->last.result == p;
        d->free(p);
        all = all && last_was(hook, FREE, p, 0, 0);
        PyMemAllocatorEx t;
        PyMem_GetAllocator(domain_of(d), &t);
        all = all && t.ctx == hook;
    }
    return all;
}

static void dressed(void *unused)
{
    PyMem_SetupDebugHooks();
    FOR_EACH_DOMAIN(d)
        CHECK(memcmp((char *)d->malloc(10) + 10, "\xFD\xFD\xFD\xFD\xFD\xFD\xFD\xFD", 8) == 0);
}

static void set_in_a_constructor(void)
{
    FACT("all hooked: %s", all_hooked() ? "yes" : "no");
    raw.free(block);
    CHECK(last_was(&early[PYMEM_DOMAIN_RAW], FREE, block, 0, 0));
    unsigned made = source.made;
    char *p[10000];
    for (int i = 0; i < 10000; i++)
        fill(p[i] = obj.malloc(BLOCK), BLOCK, i);
    for (int i = 0; i < 10000; i++) {
        CHECK(from_source(p[i], BLOCK) && holds(p[i], BLOCK, i));
        mem.free(p[i]);
    }
    CHECK(source.made > made && source.not_ours == 0);
    STEP("debug hooks over them") CHECK(in_child(dressed, NULL) == 0);
    FACT("all hooked: %s", all_hooked() ? "yes" : "no");
}

CASES({"set-in-a-constructor", set_in_a_constructor});
