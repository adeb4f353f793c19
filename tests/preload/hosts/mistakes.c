/* Makes one mistake with a block of 50 bytes, by name; then works correctly, and frees the block
 * unless the mistake did. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *PyObject_Malloc(size_t n);
void *PyObject_Realloc(void *p, size_t n);
void PyObject_Free(void *p);

static volatile int sink;

int main(int argc, char **argv)
{
    const char *mistake = argc > 1 ? argv[1] : "none";
    unsigned char *p = PyObject_Malloc(40);
    memset(p, 1, 40);
    p = PyObject_Realloc(p, 50);
    memset(p, 2, 50);
    if (!strcmp(mistake, "write behind"))
        p[50] = 1;
    if (!strcmp(mistake, "read before"))
        sink = p[-1];
    if (!strcmp(mistake, "read after free")) {
        PyObject_Free(p);
        sink = p[3];
        return 0;
    }
    if (!strcmp(mistake, "read after realloc")) {
        unsigned char *moved = PyObject_Realloc(p, 52);
        sink = p[3];
        p = moved;
    }
    if (!strcmp(mistake, "free twice"))
        PyObject_Free(p);
    if (!strcmp(mistake, "free within"))
        PyObject_Free(p + 16);
    if (!strcmp(mistake, "use without contents")) {
        int *fresh = PyObject_Malloc(16);
        if (*fresh)
            sink = 1;
        PyObject_Free(fresh);
    }
    for (size_t n = 0; n < 20000; n++) {
        unsigned char *q = PyObject_Malloc(n % 1100);
        memset(q, 3, n % 1100);
        q = PyObject_Realloc(q, n % 1700);
        memset(q, 4, n % 1700);
        PyObject_Free(q);
    }
    PyObject_Free(p);
    puts("done");
    return 0;
}
