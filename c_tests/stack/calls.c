/* ways: so a pre
 *
 * On a thread with the smallest stack (PTHREAD_STACK_MIN, 16 KiB with glibc, which uses a part of
 * it; musl allows 2 KiB, which are too few) every call works, with every setting; also as the very
 * first call. */
#include "harness.h"
#include "settings.h"
#include <limits.h>

enum { BLOCKS = 1200, STACK = 16 << 10 };

static void *blocks[BLOCKS];

/* Little of the stack is to be the test's own. */
static void *calls(void *domain)
{
    const struct domain *d = domain;
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = i % 4 == 0 ? d->calloc(1, 1 + (size_t)i * 37 % 8000)
                               : d->malloc(i % 50 == 0 ? 300000 : 1 + (size_t)i * 37 % 8000);
        if (blocks[i])
            *(char *)blocks[i] = 1;
    }
    for (int i = 0; i < BLOCKS; i += 5) {
        void *moved = d->realloc(blocks[i], 100 + (size_t)i * 7);
        if (moved)
            blocks[i] = moved;
    }
    for (int i = 0; i < BLOCKS; i++)
        d->free(blocks[i]);
    obmalloc_trim(0);
    obmalloc_before_fork();
    return domain;
}

static void on_small_stack(void *(*body)(void *), const void *argument)
{
    pthread_t id;
    pthread_attr_t attributes;
    void *result = NULL;
    pthread_attr_init(&attributes);
    const long least = sysconf(_SC_THREAD_STACK_MIN);
    CHECK(pthread_attr_setstacksize(&attributes, least < STACK ? STACK : (size_t)least) == 0);
    CHECK(pthread_create(&id, &attributes, body, (void *)argument) == 0);
    CHECK(pthread_join(id, &result) == 0 && result == argument);
    pthread_attr_destroy(&attributes);
}

static void in_all_domains(void)
{
    FOR_EACH_DOMAIN(d)
        on_small_stack(calls, d);
}

CASES(WITH_MANY_SETTINGS("calls", in_all_domains));
