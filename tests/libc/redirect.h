/* Included before each test of a C library: redirects its malloc, calloc, realloc and free to a
 * domain of obmalloc (-DDOMAIN=PyMem_, PyObject_ or PyMem_Raw). */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_(domain, name) domain##name
#define JOIN(domain, name) JOIN_(domain, name)

extern void *JOIN(DOMAIN, Malloc)(size_t);
extern void *JOIN(DOMAIN, Calloc)(size_t, size_t);
extern void *JOIN(DOMAIN, Realloc)(void *, size_t);
extern void JOIN(DOMAIN, Free)(void *);
extern size_t obmalloc_trim(size_t);
extern size_t obmalloc_stats_json(char *, size_t);

#define malloc JOIN(DOMAIN, Malloc)
#define calloc JOIN(DOMAIN, Calloc)
#define realloc JOIN(DOMAIN, Realloc)
#define free JOIN(DOMAIN, Free)
#define malloc_trim(pad) (obmalloc_trim(pad) > 0)
#define malloc_stats() ((void)obmalloc_stats_json(NULL, 0))
#define reallocarray redirected_reallocarray

__attribute__((unused)) static void *redirected_reallocarray(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        bytes = (size_t)-1; /* refused, with errno */
    return realloc(p, bytes);
}
