/* ways: so a pre valgrind
 *
 * obmalloc_stats_json: well-formed, with all keys, all numbers whole, and consistent sums; like
 * snprintf with any buffer: it ends with NUL, writes no byte beyond, and returns the full length.
 * Also as the first call of a process. */
#include "stats.h"

/* A checker of JSON in recursive descent: where the value at `s` ends, NULL
 * if it is not well-formed. Numbers must be whole, as the schema says. */
static const char *space(const char *s)
{
    return s ? s + strspn(s, " \t\r\n") : NULL;
}

static const char *value_end(const char *s)
{
    if (s == NULL)
        return NULL;
    if (*s == '"') {
        for (s++; *s && *s != '"'; s++)
            if (*s == '\\' && *++s == 0)
                return NULL;
        return *s ? s + 1 : NULL;
    }
    if (*s == '{' || *s == '[') {
        const char close = *s == '{' ? '}' : ']';
        s = space(s + 1);
        if (*s == close)
            return s + 1;
        for (;; s = space(s + 1)) {
            if (close == '}') {
                s = *s == '"' ? space(value_end(s)) : NULL;
                if (s == NULL || *s++ != ':')
                    return NULL;
                s = space(s);
            }
            s = space(value_end(s));
            if (s == NULL || *s == close)
                return s ? s + 1 : NULL;
            if (*s != ',')
                return NULL;
        }
    }
    if (strncmp(s, "null", 4) == 0)
        return s + 4;
    size_t sign = *s == '-', digits = strspn(s + sign, "0123456789");
    return digits ? s + sign + digits : NULL;
}

static void keys(void)
{
    static const char *const wanted[][2] = {
        {"arenas", "size"},         {"arenas", "in_use"},         {"arenas", "empty"},
        {"arenas", "mapped_total"}, {"arenas", "unmapped_total"}, {"arenas", "highwater"},
        {"pools", "size"},          {"pools", "used"},            {"pools", "full"},
        {"pools", "free"},          {"pools", "lanes"},           {"bytes", "from_os"},
        {"bytes", "metadata"},
        {"bytes", "live"},          {"bytes", "in_magazines"},    {"bytes", "free_in_pools"},
        {"bytes", "live_requested_estimate"},                      {"large", "served_below_total"},
        {"large", "blocks_live"},   {"resident", "total"},        {"resident", "live"},
        {"resident", "in_magazines"},                             {"resident", "free_in_pools"},
        {"resident", "empty_pools"},                              {"resident", "metadata"},
        {"resident", "returned_total"},
    };
    const char *all = stats_text, *end = all + strlen(all);
    const char *version = value_of(all, end, "version");
    CHECK(version && strncmp(version, "\"0.1.0\"", 7) == 0);
    CHECK(number_at(value_of(all, end, "schema")) >= 1);
    CHECK(number_at(value_of(all, end, "pid")) == getpid());
    const char *host = value_of(all, end, "host");
    CHECK(host && strncmp(host, "null", 4) == 0); /* no CPython here */
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (stat_of(wanted[i][0], wanted[i][1]) < 0) {
            fprintf(stderr, "missing: %s.%s\n", wanted[i][0], wanted[i][1]);
            CHECK(!"all keys are there");
        }
    CHECK(stat_of("arenas", "size") == 2 << 20);
    CHECK(stat_of("pools", "size") == 64 << 10);
}

static void sums(void)
{
    CHECK(stat_of("bytes", "live") == bytes_of_classes("blocks_live"));
    CHECK(stat_of("bytes", "in_magazines") == bytes_of_classes("blocks_in_magazines"));
    CHECK(stat_of("bytes", "free_in_pools") == bytes_of_classes("blocks_free"));
    CHECK(stat_of("pools", "used") + stat_of("pools", "full") == total_of_classes("pools"));
    CHECK(stat_of("arenas", "highwater") >= stat_of("arenas", "in_use"));
    CHECK(stat_of("arenas", "mapped_total") >= stat_of("arenas", "highwater"));
    CHECK(stat_of("bytes", "from_os") >= stat_of("bytes", "live"));
    CHECK(stat_of("bytes", "live_requested_estimate") <= stat_of("bytes", "live"));
    CHECK(stat_of("resident", "live") == stat_of("bytes", "live"));
    CHECK(stat_of("resident", "total") ==
          stat_of("resident", "live") + stat_of("resident", "in_magazines") +
              stat_of("resident", "free_in_pools") + stat_of("resident", "empty_pools") +
              stat_of("resident", "metadata"));
    for (const char *c = NULL; (c = next_class(c));) {
        CHECK(in_class(c, "class") >= 0 && in_class(c, "size") > 0);
        CHECK(in_class(c, "pools") >= 0 && in_class(c, "blocks_live") >= 0);
    }
}

/* Requests of 33 bytes in blocks of 48: the estimate tells them from what is rounded
 * up, to an eighth. */
static void requested(void)
{
    enum { MANY = 20000 };
    static void *p[MANY];
    read_stats();
    long long before = stat_of("bytes", "live_requested_estimate");
    for (size_t i = 0; i < MANY; i++)
        p[i] = obj.malloc(33);
    read_stats();
    long long more = stat_of("bytes", "live_requested_estimate") - before;
    CHECK(more > 33LL * MANY * 7 / 8 && more < 33LL * MANY * 9 / 8);
    for (size_t i = 0; i < MANY; i++)
        obj.free(p[i]);
}

static void well_formed(void)
{
    read_stats();
    const char *end = space(value_end(stats_text));
    CHECK(stats_text[0] == '{' && end && *end == 0);
    keys();
    sums();
}

static void truncation(void)
{
    static char buffer[1 << 17];
    size_t length = obmalloc_stats_json(NULL, 0);
    CHECK(length > 100 && length + 100 < sizeof buffer);
    for (size_t size = 0; size < length + 50; size += size < 300 || size + 20 > length ? 1 : 97) {
        memset(buffer, 0x7F, sizeof buffer);
        CHECK(obmalloc_stats_json(buffer, size) == length); /* nothing runs */
        size_t written = size > length ? length + 1 : size;
        CHECK(written == 0 || strlen(buffer) == written - 1);
        for (size_t i = written; i < size + 64; i++)
            CHECK(buffer[i] == 0x7F);
    }
}

static void json(void)
{
    void *p[500];
    STEP("before anything") well_formed();
    for (size_t i = 0; i < 500; i++)
        p[i] = obj.malloc(i * 40);
    STEP("in use") well_formed();
    STEP("any buffer") truncation();
    for (size_t i = 0; i < 500; i++)
        obj.free(p[i]);
    STEP("after use") well_formed();
    STEP("requested") requested();
}

CASES({"json", json});
