/* To preload before the library: OS pages of SIMULATED_PAGE bytes, for it alone. At
 * the end it says how many arenas there were, or nothing was simulated. */
#include "../../../c_tests/page_size/page_size.h"

static void __attribute__((destructor)) say(void)
{
    if (getenv("SIMULATED_PAGE"))
        fprintf(stderr, "asked %u, arenas %u\n", asked_for_page, arenas_noted);
}
