/* What a child process says on stderr before it ends. */
#ifndef SAID_H
#define SAID_H

#include "harness.h"
#include <fcntl.h>

/* The library writes only to the stderr that was there when the program started. So the
 * program starts once more, with a file for stderr, and takes its own back after that:
 * `said_file` is the file, and 2 is it while a child runs. */
static int said_file;

/* When the program's own part begins, and so behind the constructors of the library. */
static void take_stderr_back(void)
{
    int kept = atoi(getenv("SAID_STDERR"));
    said_file = fcntl(2, F_DUPFD_CLOEXEC, 100);
    dup2(kept, 2);
    close(kept);
    unsetenv("SAID_STDERR");
}

static __attribute__((constructor)) void start_with_a_file(int argc, char **argv)
{
    (void)argc;
    before_test = take_stderr_back;
    if (getenv("SAID_STDERR"))
        return;
    char name[] = "/tmp/obmalloc-said-XXXXXX", number[12];
    int file = mkstemp(name);
    snprintf(number, sizeof number, "%d", fcntl(2, F_DUPFD, 100));
    setenv("SAID_STDERR", number, 1);
    if (file < 0 || unlink(name) != 0 || dup2(file, 2) != 2 || close(file) != 0)
        abort();
    execv("/proc/self/exe", argv);
    abort();
}

/* Runs `body` in a child with its stderr in the file; returns the child's wait status. */
static MAYBE_UNUSED int said_in_child(void (*body)(void *), void *argument, char *said, size_t room)
{
    int saved = dup(2);
    CHECK(ftruncate(said_file, 0) == 0 && lseek(said_file, 0, SEEK_SET) == 0);
    dup2(said_file, 2);
    int status = in_child(body, argument);
    dup2(saved, 2);
    close(saved);
    ssize_t length = pread(said_file, said, room - 1, 0);
    CHECK(length >= 0);
    said[length > 0 ? length : 0] = 0;
    return status;
}

/* How often it says this. */
static MAYBE_UNUSED int count(const char *said, const char *what)
{
    int n = 0;
    for (; (said = strstr(said, what)); said++)
        n++;
    return n;
}

/* The library's end of a process it cannot go on with: a line, and abort. */
static MAYBE_UNUSED bool ended_in_one_line(int status, const char *said)
{
    const char *line_end = strchr(said, '\n');
    bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    bool one_line = strncmp(said, "obmalloc: ", 10) == 0 && line_end && line_end[1] == 0;
    if (!aborted || !one_line)
        fprintf(stderr, "wait status %#x, it said: %s\n", (unsigned)status, said);
    return aborted && one_line;
}

#endif
