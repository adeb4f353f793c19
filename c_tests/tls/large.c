/* ways: so a pre
 *
 * A program whose own thread-local storage is larger than the helper thread's stack: the C library
 * places it on the stack of every thread. The helper runs all the same, and returns pages. */
#include "resident.h"

static struct crowd crowd;
static _Thread_local volatile char large[MIB];

static void pages_go_back(void)
{
    large[MIB - 1] = 1;
    join_crowd(&crowd, 48 * MIB, 100, 1000);
    const size_t peak = resident();
    leave_crowd(&crowd, 10);
    CHECK(COMES(helper_now() != 0, PATIENCE));
    CHECK(COMES(resident() + 24 * MIB < peak, PATIENCE));
    CHECK(COMES(threads_now() == 1, PATIENCE));
    CHECK(crowd_holds(&crowd));
}

CASES({"beside-a-large-thread-local-array", pages_go_back, ALL_POOLS "OBMALLOC_DECAY_MS=300"});
