/* Preloaded before the library: simulates OS pages of SIMULATED_PAGE bytes, for the library alone.
 * At the end it prints the number of arenas; no line means that nothing was simulated. */
#include "../../../c_tests/page_size/page_size.h"

static void __attribute__((destructor)) say(void)
{
    if (getenv("SIMULATED_PAGE"))
        fprintf(stderr, "asked %u, arenas %u\n", asked_for_page, arenas_noted);
}
