/* A program that is no Python: prints the number of its threads and its map. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    int threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks && readdir(tasks))
        threads++;
    free(malloc(100000));
    printf("threads %d\n", threads - 2);            /* without . and .. */

    FILE *maps = fopen("/proc/self/maps", "r");
    for (int c; maps && (c = getc(maps)) != EOF;)
        putchar(c);
    return threads == 0 || maps == NULL;
}
