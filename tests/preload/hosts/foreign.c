/* The functions of another allocator that was in the host's table first. */
#include <stdlib.h>

void *foreign_malloc(void *ctx, size_t n) { (void)ctx; return malloc(n ? n : 1); }
void *foreign_calloc(void *ctx, size_t count, size_t size)
{
    (void)ctx;
    return calloc(count ? count : 1, size ? size : 1);
}
void *foreign_realloc(void *ctx, void *p, size_t n) { (void)ctx; return realloc(p, n ? n : 1); }
void foreign_free(void *ctx, void *p) { (void)ctx; free(p); }
