/* A test body under several settings: each in a child process of its own, since the library
 * reads them at the first call. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include "harness.h"

struct setting {
    const char *name, *value; /* NULL: none */
};

/* Settings under which the library makes system calls, reads files or has threads. */
static const struct setting many_settings[] = {
    {NULL, NULL},
    {"OBMALLOC_LIMIT", "auto"},
    {"OBMALLOC_LIMIT", "200M"},
    {"OBMALLOC_LIMIT_HARD", "1G"},
    {"OBMALLOC_GUARD", "1"},
    {"OBMALLOC_GUARD", "50"},
    {"OBMALLOC_DECAY_MS", "0"},
    {"OBMALLOC_THREAD", "0"},
    {"OBMALLOC_LIVE", "1"},
    {"OBMALLOC_DEBUG", "1"},
};
enum { MANY_SETTINGS = sizeof many_settings / sizeof *many_settings };

/* Runs `body` with one setting; prints how it went. */
static MAYBE_UNUSED void under(const struct setting *setting, void (*body)(void *), void *argument)
{
    char name[80];
    snprintf(name, sizeof name, "%s=%s", setting->name ? setting->name : "no setting",
             setting->value ? setting->value : "");
    CHECK_BODY(name) {
        if (setting->name)
            setenv(setting->name, setting->value, 1);
        CHECK(in_child(body, argument) == 0);
        if (setting->name)
            unsetenv(setting->name);
    }
}

#endif
