/* ways: so a pre
 *
 * OBMALLOC_DEBUG=1 in a process without CPython: the library's debug hooks are above all three
 * domains from the first call. */
#include "harness.h"

static void well(void *domain)
{
    const struct domain *d = domain;
    void *p = d->malloc(40);
    fill(p, 40, 1);
    p = d->realloc(p, 4000);
    CHECK(holds(p, 40, 1));
    d->free(p);
}

static void overflow(void *domain)
{
    const struct domain *d = domain;
    char *p = d->malloc(40);
    p[40] = 1;
    d->free(p);
    fprintf(stderr, "survived\n");
}

static void debug_setting(void)
{
    static const struct domain *domains[] = {&raw, &mem, &obj};
    static char said[4000];
    for (size_t i = 0; i < 3; i++)
        STEP(domains[i]->name) {
            setenv("OBMALLOC_DEBUG", "1", 1);
            CHECK(output_in_child(well, (void *)domains[i], said, sizeof said) == 0 && !*said);
            int status = output_in_child(overflow, (void *)domains[i], said, sizeof said);
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
            CHECK(strstr(said, "at tail+0: 0x01") && !strstr(said, "survived"));
            setenv("OBMALLOC_DEBUG", "0", 1);
            CHECK(output_in_child(well, (void *)domains[i], said, sizeof said) == 0 && !*said);
        }
}

CASES({"setting", debug_setting, .reads_stderr = true});
