/* A program of somebody who uses the installed header and library: it holds blocks, and
 * prints the version and how many of them the library has counted. */
#include <obmalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 1000 };

/* The number after the first occurrence of the name in the statistics. */
static long number(const char *name) {
    static char json[1 << 16];
    if (obmalloc_stats_json(json, sizeof json) >= sizeof json) return -1;
    const char *found = strstr(json, name);
    return found ? strtol(found + strlen(name), NULL, 10) : -1;
}

int main(void) {
    static void *blocks[BLOCKS];
    long before = number("\"live\":");
    for (int n = 0; n < BLOCKS; n++) blocks[n] = PyObject_Malloc(48);
    long held = number("\"live\":") - before;
    for (int n = 0; n < BLOCKS; n++) PyObject_Free(blocks[n]);
    printf("%s %ld\n", obmalloc_version(), held);
    return 0;
}
