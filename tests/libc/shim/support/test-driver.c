/* The end of a test of glibc's: runs do_test, as glibc's driver does. */
#include "shim.h"

#ifndef TEST_FUNCTION
#define TEST_FUNCTION do_test
#endif

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    int status = TEST_FUNCTION();
    return status ? status : shim_failures != 0;
}
