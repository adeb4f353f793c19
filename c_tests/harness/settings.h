/* Settings under which the library makes system calls, reads files or has threads. */
#define WITH_MANY_SETTINGS(name, run)                      \
    {name, run},                                           \
    {name "-limit-auto", run, "OBMALLOC_SOFT_LIMIT=auto"}, \
    {name "-limit", run, "OBMALLOC_SOFT_LIMIT=200M"},      \
    {name "-hard-limit", run, "OBMALLOC_HARD_LIMIT=1G"},   \
    {name "-guard-all", run, "OBMALLOC_GUARD_SAMPLE_RATE=1"},\
    {name "-guard", run, "OBMALLOC_GUARD_SAMPLE_RATE=50"}, \
    {name "-returned-at-once", run, "OBMALLOC_DECAY_MS=0"},\
    {name "-no-thread", run, "OBMALLOC_BACKGROUND_THREAD=0"},\
    {name "-stats-page", run, "OBMALLOC_STATS_PAGE=1"},    \
    {name "-debug", run, "OBMALLOC_DEBUG=1"}
