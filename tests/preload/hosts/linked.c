/* A program that is linked with the library: allocates, and prints its user ids. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

void *PyObject_Malloc(size_t);
void PyObject_Free(void *);

int main(void)
{
    for (int round = 0; round < 50; round++) {
        static char *kept[1000];
        for (size_t i = 0; i < 1000; i++)
            memset(kept[i] = PyObject_Malloc(i + 1), (int)i, i + 1);
        for (size_t i = 0; i < 1000; i++) {
            if (kept[i][i] != (char)i)
                return 1;
            PyObject_Free(kept[i]);
        }
    }
    printf("%d %d %lu\n", (int)getuid(), (int)geteuid(), getauxval(AT_SECURE));
    return 0;
}
