/* The end of an older test of glibc's, whose TEST_FUNCTION is an expression. */
#include "support/shim.h"

#ifndef TEST_FUNCTION
#define TEST_FUNCTION do_test()
#endif

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    int status = TEST_FUNCTION;
    return status ? status : shim_failures != 0;
}
