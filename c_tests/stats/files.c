/* ways: so a pre
 *
 * The library writes only to the stderr that existed at the start, and does not change how the
 * program ends: no signal by a pipe without a reader or by a limit on files, no wait for a full
 * pipe, no line in a file that got number 2. A file of statistics is whole or does not exist, and
 * one line gives the reason. */
#include "harness.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { STATUS = 7, OWN = 100 };

static char folder[] = "/tmp/obmalloc-reports-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* ---- the program that is watched: this one once more ---- */

static void work(void)
{
    static char *p[5000];
    for (int i = 0; i < 5000; i++)
        p[i] = obj.malloc(48);
    for (int i = 0; i < 5000; i++)
        obj.free(p[i]);
}

/* Closes 0 to 2 and opens its own files, which get these numbers. */
static void reuse(void)
{
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    for (int fd = 0; fd < 3; fd++) {
        char name[PATH_MAX], bytes[OWN];
        snprintf(name, sizeof name, "%s/own-%d", getenv("TEST_FOLDER"), fd);
        memset(bytes, 'D', sizeof bytes);
        if (open(name, O_RDWR | O_CREAT | O_TRUNC, 0600) != fd || write(fd, bytes, OWN) != OWN)
            _exit(99);
    }
}

static void play(const char *role)
{
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    work();
    if (strcmp(role, "works") != 0)
        reuse();
    if (strcmp(role, "frees wrongly") == 0)
        for (int i = 0; i < 3; i++) {
            char *block = obj.malloc(48);
            obj.free(block + 16); /* no block begins there */
            obmalloc_trim(0);     /* has the magazines looked at */
        }
    exit(STATUS);
}

/* ---- the watcher ---- */

static double took; /* seconds */

/* Runs this program in `role` with a setting and this stderr; its wait status. */
static int run_as(const char *role, const char *setting, int err, void (*limit)(void))
{
    const double begin = seconds();
    pid_t pid = fork();
    if (pid == 0) {
        setenv("TEST_ROLE", role, 1);
        setenv("TEST_FOLDER", folder, 1);
        putenv((char *)setting);
        if (err < 0)
            close(2);
        else
            dup2(err, 2);
        if (limit)
            limit();
        run_this_program((char *[]){"stats", "files", NULL});
        _exit(98);
    }
    int status = status_of(pid);
    took = seconds() - begin;
    return status;
}

static bool ended(int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS && took < 5)
        return true;
    fprintf(stderr, "status %#x after %.1f s\n", (unsigned)status, took);
    return false;
}

/* A pipe for stderr; what comes is read by `lines_of`. */
static int reader, writer;

static void new_pipe(void)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    reader = ends[0];
    writer = ends[1];
}

static char said[1 << 16];

static int lines(void)
{
    close(writer);
    ssize_t n, all = 0;
    while ((n = read(reader, said + all, sizeof said - 1 - (size_t)all)) > 0)
        all += n;
    said[all] = 0;
    close(reader);
    int count = 0;
    for (const char *at = said; (at = strchr(at, '\n')); at++)
        count++;
    return count;
}

static void no_reader(void)
{
    static const char *const settings[] = {"OBMALLOC_STATS=1", "OBMALLOC_VERBOSE=1",
                                           "OBMALLOC_NO_SUCH=1", "OBMALLOC_STATS=/no such/file"};
    for (int i = 0; i < 4; i++) {
        new_pipe();
        close(reader);
        CHECK(ended(run_as("works", settings[i], writer, NULL)));
        close(writer);
    }
}

static void full_pipe(void)
{
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        new_pipe();
        fcntl(writer, F_SETFL, O_NONBLOCK);
        char bytes[4096] = {0};
        while (write(writer, bytes, sizeof bytes) > 0) {}
        if (!nonblocking)
            fcntl(writer, F_SETFL, 0);
        CHECK(ended(run_as("works", "OBMALLOC_STATS=1", writer, NULL)));
        close(reader);
        close(writer);
    }
}

static void own_files(int err, const char *setting, const char *role)
{
    int status = run_as(role, setting, err, NULL);
    CHECK(strcmp(role, "reuses") != 0 || ended(status));
    for (int fd = 0; fd < 3; fd++) {
        char name[8];
        struct stat about;
        snprintf(name, sizeof name, "own-%d", fd);
        CHECK(stat(in_folder(name), &about) == 0 && about.st_size == OWN);
        unlink(in_folder(name));
    }
}

static void reused(void)
{
    static const char *const settings[] = {
        "OBMALLOC_STATS=1", "OBMALLOC_STATS=/dev/stderr", "OBMALLOC_STATS=/dev/fd/1",
        "OBMALLOC_STATS=/dev/stdout", "OBMALLOC_STATS=/no such/file"};
    for (int i = 0; i < 5; i++) {
        new_pipe();
        own_files(writer, settings[i], "reuses");
        CHECK(lines() == 0);
        own_files(-1, settings[i], "reuses"); /* closed from the start */
    }
    new_pipe();
    own_files(writer, "OBMALLOC_ON_ERROR=report", "frees wrongly");
    own_files(writer, "OBMALLOC_ON_ERROR=abort", "frees wrongly");
    CHECK(lines() == 0);
}

/* Reports are written where stderr is what it was. */
static void still_said(void)
{
    new_pipe();
    CHECK(ended(run_as("works", "OBMALLOC_STATS=1", writer, NULL)));
    CHECK(lines() > 3 && strncmp(said, "obmalloc: statistics of pid ", 28) == 0);
    new_pipe();
    CHECK(ended(run_as("works", "OBMALLOC_STATS=/dev/stderr", writer, NULL)));
    CHECK(lines() == 1 && said[0] == '{');
    /* A log: what the program and others wrote there stays. */
    int log = open(in_folder("log"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(write(log, "mine\n", 5) == 5);
    CHECK(ended(run_as("works", "OBMALLOC_STATS=/dev/stderr", log, NULL)));
    char head[6] = "";
    CHECK(pread(log, head, 6, 0) == 6 && memcmp(head, "mine\n{", 6) == 0);
    close(log);
}

/* ---- files ---- */

static int entries_before;

static int entries(void)
{
    int count = -2; /* without the folder itself and the one above */
    DIR *open = opendir(folder);
    CHECK(open);
    while (readdir(open))
        count++;
    closedir(open);
    return count;
}

static void no_file(void)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_FSIZE, &none);
}

static void small_file(void)
{
    struct rlimit small = {512, 512};
    setrlimit(RLIMIT_FSIZE, &small);
}

/* `path` is not written, one line reports that, and the folder has no new file. */
static void refused(const char *path, void (*limit)(void))
{
    char setting[PATH_MAX + 20];
    snprintf(setting, sizeof setting, "OBMALLOC_STATS=%s", path);
    new_pipe();
    CHECK(ended(run_as("works", setting, writer, limit)));
    if (lines() != 1 || strncmp(said, "obmalloc: no statistics, ", 25) != 0) {
        fprintf(stderr, "%s: %s\n", path, said);
        CHECK(!"one line");
    }
    CHECK(entries() == entries_before);
}

static void files(void)
{
    char path[PATH_MAX], setting[PATH_MAX + 20], expected[] = "before";
    CHECK(mkfifo(in_folder("fifo"), 0600) == 0);
    CHECK(mkdir(in_folder("folder"), 0700) == 0);
    CHECK(symlink("round", in_folder("round")) == 0);
    int full = open(in_folder("old"), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    CHECK(write(full, expected, sizeof expected) == sizeof expected);
    entries_before = entries();
    refused(in_folder("fifo"), NULL);
    refused(in_folder("folder"), NULL);
    refused(in_folder("folder/"), NULL);
    refused(in_folder("round"), NULL);
    refused("/no such folder/file", NULL);
    refused("/dev/full", NULL);
    memset(path, 'x', 1000);
    path[1000] = 0;
    refused(path, NULL);
    refused(in_folder("new"), no_file);
    refused(in_folder("new"), small_file);
    refused(in_folder("old"), small_file); /* which stays as it is */
    CHECK(pread(full, path, 7, 0) == 7 && strcmp(path, expected) == 0);
    /* A FIFO that is open, but not read. */
    int end = open(in_folder("fifo"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    char bytes[4096] = {0};
    while (write(end, bytes, sizeof bytes) > 0) {}
    refused(in_folder("fifo"), NULL);
    close(end);
    /* One that is read. */
    end = open(in_folder("fifo"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(setting, sizeof setting, "OBMALLOC_STATS=%s", in_folder("fifo"));
    CHECK(ended(run_as("works", setting, 2, NULL)));
    CHECK(read(end, path, 11) == 11 && memcmp(path, "{\"version\":", 11) == 0);
    close(end);
    /* A file is replaced, and keeps its mode. */
    snprintf(setting, sizeof setting, "OBMALLOC_STATS=%s", in_folder("old"));
    CHECK(ended(run_as("works", setting, 2, NULL)));
    struct stat about;
    CHECK(stat(in_folder("old"), &about) == 0 && about.st_size > 200);
    CHECK((about.st_mode & 07777) == 0640);
    CHECK(entries() == entries_before);
    close(full);
}

/* ---- snapshots ---- */

static void snapshots(void)
{
    entries_before = entries();
    struct stat about;
    work();
    CHECK(obmalloc_snapshot(in_folder("fifo")) == ENXIO);
    int end = open(in_folder("fifo"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    CHECK(obmalloc_snapshot(in_folder("fifo")) == ESPIPE);
    close(end);
    CHECK(obmalloc_snapshot(in_folder("round")) == ELOOP);
    CHECK(obmalloc_snapshot("/dev/stdout") == ESPIPE);
    CHECK(obmalloc_snapshot("") == ENOENT);
    CHECK(obmalloc_snapshot("/dev/full") == ENOSPC);
    CHECK(obmalloc_snapshot("/dev/null") == 0);
    CHECK(entries() == entries_before);
    CHECK(obmalloc_snapshot(in_folder("heap")) == 0);
    CHECK(stat(in_folder("heap"), &about) == 0 && (about.st_mode & 07777) == 0600);
    ino_t first = about.st_ino;
    CHECK(obmalloc_snapshot(in_folder("heap")) == 0); /* another file by that name */
    CHECK(stat(in_folder("heap"), &about) == 0 && about.st_ino != first);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGXFSZ, SIG_DFL);
        small_file();
        CHECK(obmalloc_snapshot(in_folder("heap")) == EFBIG);
        _exit(exit_status());
    }
    CHECK(status_of(pid) == 0);
    ino_t second = about.st_ino;
    CHECK(stat(in_folder("heap"), &about) == 0 && about.st_ino == second && about.st_size > 6672);
    CHECK(entries() == entries_before + 1);
}

static void files_and_stderr(void)
{
    const char *role = getenv("TEST_ROLE");
    if (role)
        play(role);
    CHECK(mkdtemp(folder) != NULL);
    STEP("stderr without a reader") no_reader();
    STEP("stderr that nobody empties") full_pipe();
    STEP("stderr as it was") still_said();
    STEP("other files under the numbers 0 to 2") reused();
    STEP("files") files();
    STEP("snapshots") snapshots();
    char command[PATH_MAX];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK(shell(command) == 0);
}

CASES({"files", files_and_stderr});
