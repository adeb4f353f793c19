/* Starts a program from a thread with a small stack, by posix_spawn, by fork and by vfork,
   and prints how many bytes of that stack were used:

       small_stack BYTES PROGRAM [ARGUMENTS]

   Each line: the call, the program's exit status, bytes. The stack is filled with a pattern
   before the call; the overwritten part is counted from the far end. */
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char **command;
static const char *way;
static int status;

static int spawned(void)
{
    pid_t pid;
    return posix_spawn(&pid, command[0], NULL, NULL, command, environ) ? -1 : pid;
}

static int forked(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        execve(command[0], command, environ);
        _exit(99);
    }
    return pid;
}

/* As subprocess does it: nothing but execve in the child. */
static __attribute__((noinline)) int vforked(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        execve(command[0], command, environ);
        _exit(99);
    }
    return pid;
}

static void *start(void *unused)
{
    (void)unused;
    int pid = way[0] == 's' ? spawned() : way[0] == 'f' ? forked() : vforked();
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        status = -1;
    return NULL;
}

int main(int argc, char **argv)
{
    static const char *const ways[] = {"spawn", "fork", "vfork", "spawn", "vfork", "vfork"};
    size_t bytes = strtoul(argc > 2 ? argv[1] : "0", NULL, 0);
    command = argv + 2;
    if (bytes == 0)
        return 2;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        unsigned char *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        pthread_attr_t attributes;
        pthread_t thread;
        memset(stack, 0xa5, bytes);
        pthread_attr_init(&attributes);
        if (pthread_attr_setstack(&attributes, stack, bytes))
            return 3;
        way = ways[i];
        if (pthread_create(&thread, &attributes, start, NULL) || pthread_join(thread, NULL))
            return 4;
        size_t left = 0;
        while (left < bytes && stack[left] == 0xa5)
            left++;
        printf("%s %d %zu\n", way, status, bytes - left);
        fflush(stdout);
        munmap(stack, bytes);
    }
    return 0;
}
