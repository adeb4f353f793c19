/* main of every test program: finds the case, and starts the process that it needs. */
#define NO_API
#include "harness.h"

#include <fcntl.h>

enum { LISTS = 32 };

static struct {
    const struct test_case *cases;
    size_t n;
} lists[LISTS]; /* one for each file of the program */
static size_t lists_used;

void add_cases(const struct test_case *cases, size_t n)
{
    if (lists_used == LISTS)
        abort();
    lists[lists_used].cases = cases;
    lists[lists_used++].n = n;
}

#define FOR_EACH_CASE(c)                              \
    for (size_t list_ = 0; list_ < lists_used; list_++) \
        for (const struct test_case *c = lists[list_].cases; \
             c < lists[list_].cases + lists[list_].n; c++)

extern int stderr_file; /* harness.c */

void run_this_program(char **argv)
{
    char *words[16] = {NULL}, name[4096] = "", *runner = getenv("TEST_RUNNER");
    int n = 0;
    if (runner) {
        for (char *each = strtok(strdup(runner), " "); each && n < 8; each = strtok(NULL, " "))
            words[n++] = each;
        if (readlink("/proc/self/exe", name, sizeof name - 1) < 0)
            abort();
        words[n++] = name;
        for (char **each = argv + 1; *each && n < 15; each++)
            words[n++] = *each;
        execvp(words[0], words);
    } else {
        execv("/proc/self/exe", argv);
    }
}

/* The library reads its settings once, some of them before main, and reports only to the stderr
 * that was there when the program started. So a case that needs either starts the program again. */
static void start_again(const struct test_case *c, char **argv)
{
    const char *kept = getenv("TEST_STARTED");
    if ((!c->settings && !c->reads_stderr) || (kept && !c->reads_stderr))
        return;
    if (kept) {
        stderr_file = fcntl(2, F_DUPFD_CLOEXEC, 100);
        dup2(atoi(kept), 2);
        close(atoi(kept));
        return;
    }
    char settings[400], number[12];
    snprintf(settings, sizeof settings, "%s", c->settings ? c->settings : "");
    for (char *each = strtok(settings, " "); each; each = strtok(NULL, " "))
        putenv(strdup(each));
    snprintf(number, sizeof number, "%d", c->reads_stderr ? fcntl(2, F_DUPFD, 100) : 0);
    setenv("TEST_STARTED", number, 1);
    if (c->reads_stderr) {
        char name[] = "/tmp/obmalloc-stderr-XXXXXX";
        int file = mkstemp(name);
        if (file < 0 || unlink(name) != 0 || dup2(file, 2) != 2 || close(file) != 0)
            abort();
    }
    run_this_program(argv);
    abort();
}

static int run_all(char *program)
{
    int failed = 0;
    FOR_EACH_CASE(c) {
        int status = -1;
        pid_t pid = fork();
        if (pid == 0) {
            run_this_program((char *[]){program, (char *)c->name, NULL});
            _exit(127);
        }
        waitpid(pid, &status, 0);
        printf("%s: %s\n", c->name, status == 0 ? "ok" : "FAILED");
        failed += status != 0;
    }
    return failed > 100 ? 100 : failed;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 2)
        return run_all(argv[0]);
    FOR_EACH_CASE(c) {
        if (strcmp(argv[1], "--list") == 0) {
            puts(c->name);
        } else if (strcmp(argv[1], c->name) == 0) {
            start_again(c, argv);
#ifdef HOST_CPYTHON
            Py_InitializeEx(0);
#endif
            c->run();
            return exit_status();
        }
    }
    if (strcmp(argv[1], "--list") == 0)
        return 0;
    fprintf(stderr, "%s: no case %s\n", argv[0], argv[1]);
    return 125;
}
