/* Newer compilers' instrumented code calls these by names of their own, which the
 * runtime of an older gcc does not have: ThreadSanitizer sees the plain names. */
#include <string.h>

void *__tsan_memcpy(void *to, const void *from, size_t n)
{
    return memcpy(to, from, n);
}

void *__tsan_memmove(void *to, const void *from, size_t n)
{
    return memmove(to, from, n);
}

void *__tsan_memset(void *to, int byte, size_t n)
{
    return memset(to, byte, n);
}
