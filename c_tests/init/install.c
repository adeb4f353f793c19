/* ways: so a pre valgrind
 *
 * obmalloc_install in a process without CPython: it returns the reason as a positive code, each
 * time, and changes nothing. The version is the one of the header and the package. */
#include "stats.h"

static void refused(void)
{
    int reason = obmalloc_install();
    CHECK(reason > 0);
    CHECK(obmalloc_install() == reason);
}

static void install(void)
{
    STEP("version") {
        CHECK(strcmp(obmalloc_version(), "0.1.0") == 0);
        CHECK(obmalloc_version() == obmalloc_version()); /* a constant */
    }
    STEP("install before anything") refused();
    void *p = obj.malloc(100), *q = raw.malloc(100), *large = mem.malloc(100000);
    fill(p, 100, 1);
    fill(q, 100, 2);
    fill(large, 100000, 3);
    read_stats();
    long long live = stat_of("bytes", "live"), from_os = stat_of("bytes", "from_os");
    STEP("install in the middle") {
        refused();
        read_stats();
        CHECK(stat_of("bytes", "live") == live && stat_of("bytes", "from_os") == from_os);
        CHECK(class_stat(112, "blocks_live") == 1);
        CHECK(holds(p, 100, 1) && holds(q, 100, 2) && holds(large, 100000, 3));
    }
    obj.free(p);
    raw.free(q);
    mem.free(large);
    STEP("and goes on as before") {
        read_stats();
        CHECK(class_stat(112, "blocks_live") == 0);
        p = obj.malloc(100);
        read_stats();
        CHECK(class_stat(112, "blocks_live") == 1); /* still from us */
        obj.free(p);
    }
}

CASES({"install", install});
