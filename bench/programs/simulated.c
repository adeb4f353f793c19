/* The clock that a benchmark reads under callgrind (the benchmark `simulated`): instructions
 * between two readings are counted, those before and after are not. */
#include <time.h>
#include <valgrind/callgrind.h>

double read_clock(void)
{
    static int readings;
    struct timespec now;
    if (readings++ == 0)
        CALLGRIND_START_INSTRUMENTATION;
    clock_gettime(CLOCK_MONOTONIC, &now);
    CALLGRIND_TOGGLE_COLLECT;
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
