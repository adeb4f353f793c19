/* What a child process says on stderr before it ends. */
#ifndef SAID_H
#define SAID_H

#include "harness.h"

/* Runs `body` in a child with its stderr in a pipe, which has to hold all of
 * it; returns the child's wait status. */
static MAYBE_UNUSED int said_in_child(void (*body)(void *), void *argument, char *said, size_t room)
{
    int ends[2], saved = dup(2);
    CHECK(pipe(ends) == 0);
    dup2(ends[1], 2);
    int status = in_child(body, argument);
    dup2(saved, 2);
    close(saved);
    close(ends[1]);
    size_t length = 0;
    for (ssize_t n; (n = read(ends[0], said + length, room - 1 - length)) > 0;)
        length += (size_t)n;
    said[length] = 0;
    close(ends[0]);
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
