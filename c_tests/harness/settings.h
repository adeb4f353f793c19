/* Settings under which the library makes system calls, reads files or has threads. */
#define WITH_MANY_SETTINGS(name, run)                      \
    {name, run},                                           \
    {name "-limit-auto", run, "OBMALLOC_LIMIT=auto"},      \
    {name "-limit", run, "OBMALLOC_LIMIT=200M"},           \
    {name "-hard-limit", run, "OBMALLOC_LIMIT_HARD=1G"},   \
    {name "-guard-all", run, "OBMALLOC_GUARD=1"},          \
    {name "-guard", run, "OBMALLOC_GUARD=50"},             \
    {name "-returned-at-once", run, "OBMALLOC_DECAY_MS=0"},  \
    {name "-no-thread", run, "OBMALLOC_THREAD=0"},         \
    {name "-stats-page", run, "OBMALLOC_LIVE=1"},          \
    {name "-debug", run, "OBMALLOC_DEBUG=1"}
