/* One malloc and one free that hit, N times: the program that bench/instructions.py counts
 * under callgrind.
 *
 * Linked with libobmalloc.so, without CPython in the process, so the library serves
 * PyObject_* itself. The difference of two runs with different N contains the loop only. */
#include <stddef.h>
#include <stdlib.h>

extern void *PyObject_Malloc(size_t n);
extern void PyObject_Free(void *p);

int main(int count, char **values)
{
    long n = count > 1 ? atol(values[1]) : 1000;
    for (long i = 0; i < n; i++) {
        void *p = PyObject_Malloc(48);
        if (p == NULL)
            return 1;
        PyObject_Free(p);
    }
    return 0;
}
