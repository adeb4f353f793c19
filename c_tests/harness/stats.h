/* Reads obmalloc_stats_json() back. Numbers are found by name, within their
 * section; -1 if they are not there. */
#ifndef STATS_H
#define STATS_H

#include "harness.h"
#include <ctype.h>

static char stats_text[1 << 20];

static inline void read_stats(void)
{
    size_t length = obmalloc_stats_json(stats_text, sizeof stats_text);
    CHECK(length > 0 && length < sizeof stats_text);
    CHECK(strlen(stats_text) == length);
}

/* The text after `"key":`, from `text` on and before `end`. */
static const char *value_of(const char *text, const char *end, const char *key)
{
    size_t n = strlen(key);
    for (const char *at = text; at && (at = strchr(at, '"')) && at < end; at++) {
        if (strncmp(at + 1, key, n) != 0 || at[n + 1] != '"')
            continue;
        const char *value = at + n + 2;
        while (isspace((unsigned char)*value))
            value++;
        if (*value == ':') {
            do
                value++;
            while (isspace((unsigned char)*value));
            return value;
        }
    }
    return NULL;
}

static inline long long number_at(const char *value)
{
    return value && isdigit((unsigned char)*value) ? atoll(value) : -1;
}

/* stat_of("arenas", "in_use") */
static inline long long stat_of(const char *section, const char *key)
{
    const char *open = value_of(stats_text, stats_text + strlen(stats_text), section);
    const char *close = open ? strchr(open, '}') : NULL;
    return close ? number_at(value_of(open, close, key)) : -1;
}

/* The objects of "classes" one by one: pass NULL to begin. */
static const char *next_class(const char *object)
{
    if (object == NULL)
        object = value_of(stats_text, stats_text + strlen(stats_text), "classes");
    else
        object++;
    const char *open = object ? strchr(object, '{') : NULL;
    const char *last = object ? strchr(object, ']') : NULL;
    return open && last && open < last ? open : NULL;
}

static inline long long in_class(const char *object, const char *key)
{
    return number_at(value_of(object, strchr(object, '}'), key));
}

/* class_stat(48, "blocks_live"); a class that is not listed has none. */
static inline long long class_stat(size_t size, const char *key)
{
    for (const char *c = NULL; (c = next_class(c));)
        if (in_class(c, "size") == (long long)size)
            return in_class(c, key);
    return 0;
}

static inline long long total_of_classes(const char *key)
{
    long long total = 0;
    for (const char *c = NULL; (c = next_class(c));)
        total += in_class(c, key);
    return total;
}

static inline long long bytes_of_classes(const char *key)
{
    long long total = 0;
    for (const char *c = NULL; (c = next_class(c));)
        total += in_class(c, key) * in_class(c, "size");
    return total;
}

/* The size classes as documented: every 16 bytes to 512, then 8 a doubling. */
static inline size_t next_class_size(size_t size)
{
    if (size < 512)
        return size + 16;
    size_t doubling = 512;
    while (doubling * 2 <= size)
        doubling *= 2;
    return size + doubling / 8;
}

#endif
