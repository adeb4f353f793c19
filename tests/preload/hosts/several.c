/* A program with plugins for several Pythons: each libpython is opened as the arguments say,
 * and runs in a thread of its own under its own GIL.
 *
 *   several TURNS WHEN [MODE LIBPYTHON HOME]...
 *
 * TURNS  the number of times that each Python builds and drops its objects.
 * WHEN   "parallel", "serial", or "reopened": one after the other, each opened when the one
 *        before has been finalised and closed. With "+used": the program has blocks of
 *        the library before it opens a libpython.
 * MODE   "local", "global", "deep" (RTLD_DEEPBIND), "own" (dlmopen: a namespace of its own);
 *        with "+install": obmalloc_install() under its GIL, after half of the turns;
 *        with "+bare": without extension modules.
 *
 * Each Python prints its total; the status is 0 without an error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#define BLOCKS 1000

static void *used[BLOCKS];

static const char PROLOGUE[] =
    "import gc, sys\n"
    "try: import _thread\n"
    "except ImportError: import thread as _thread\n"
    "class Node(object):\n"
    "    def __init__(self, n): self.n = n; self.text = str(n) * 3; self.more = [n, (n, n + 1)]\n"
    "totals = []\n"
    "def build(turns):\n"
    "    total = 0\n"
    "    for turn in range(turns):\n"
    "        kept = {n: Node(n) for n in range(2000)}\n"
    "        for n in range(0, 2000, 3): del kept[n]\n"
    "        large = [bytearray(700 * n) for n in range(50)]\n"
    "        more = [('%d' % n, {n: n}) for n in range(2000)]\n"
    "        total += sum(len(node.text) for node in kept.values()) + len(more) + len(large)\n"
    "    totals.append(total)\n";

/* Twice: in the thread that initialised this Python, and in two that it starts. */
static const char TURN[] =
    "locks = [_thread.allocate_lock() for n in range(2)]\n"
    "def work(lock):\n"
    "    build(TURNS)\n"
    "    lock.release()\n"
    "for lock in locks:\n"
    "    lock.acquire()\n"
    "    _thread.start_new_thread(work, (lock,))\n"
    "build(TURNS)\n"
    "for lock in locks: lock.acquire()\n"
    "gc.collect()\n";

/* Not every libpython that is opened privately can import extension modules; and beside one
 * in the global scope it must not, for their names would be bound to that one. */
static const char EPILOGUE[] =
    "def used(name, use):\n"
    "    if not MAY_IMPORT: return\n"
    "    try: module = __import__(name)\n"
    "    except ImportError: return\n"
    "    use(module)\n"
    "    sys.stdout.write('%d.%d has %s\\n' % (sys.version_info[0], sys.version_info[1], name))\n"
    "used('_json', lambda m: [m.encode_basestring_ascii('\"' * n) for n in range(2000)])\n"
    "used('_decimal', lambda m: [m.Decimal(n) / 3 for n in range(3000)])\n"
    "used('_struct', lambda m: [m.Struct('<%di' % n) for n in range(1, 2000)])\n"
    "used('_pickle', lambda m: m.loads(m.dumps([{str(n): n} for n in range(2000)])))\n"
    "used('_elementtree', lambda m: [m.Element(str(n)) for n in range(2000)])\n"
    "sys.stdout.write('%d.%d made %s\\n' % (sys.version_info[0], sys.version_info[1],\n"
    "                                     sorted(totals)))\n"
    "sys.stdout.flush()\n";

/* Blocks that the program allocates by name, under a Python's GIL, belong to that Python. */
static const char BEFORE[] = "blocks = getattr(sys, 'getallocatedblocks', int)()\n";
static const char BETWEEN[] =
    "grown = getattr(sys, 'getallocatedblocks', lambda: BLOCKS)() - blocks\n"
    "assert BLOCKS - 100 < grown < BLOCKS + 100, grown\n";

struct job {
    int turns;
    int may_import;
    const char *lib, *home, *mode;
    void *handle;
    int failed;
};

static void *function(struct job *job, const char *name)
{
    void *found = dlsym(job->handle, name);
    if (found == NULL) {
        fprintf(stderr, "%s has no %s\n", job->lib, name);
        exit(3);
    }
    return found;
}

static void open_library(struct job *job)
{
    const char *mode = job->mode;
    int flags = RTLD_NOW | (strncmp(mode, "global", 6) == 0 ? RTLD_GLOBAL : RTLD_LOCAL);
    if (strncmp(mode, "deep", 4) == 0)
        flags |= RTLD_DEEPBIND;
    job->handle = strncmp(mode, "own", 3) == 0 ? dlmopen(LM_ID_NEWLM, job->lib, flags)
                                               : dlopen(job->lib, flags);
    if (job->handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(3);
    }
}

/* The text with each of these words in it replaced by its number. */
static void replace(char *text, const char *word, int number)
{
    char *at;
    while ((at = strstr(text, word)) != NULL) {
        char digits[20];
        int length = sprintf(digits, "%d", number);
        memmove(at + length, at + strlen(word), strlen(at + strlen(word)) + 1);
        memcpy(at, digits, length);
    }
}

static void run(struct job *job, const char *code)
{
    int (*simple)(const char *) = (int (*)(const char *))function(job, "PyRun_SimpleString");
    char *text = malloc(strlen(code) + 1000);
    strcpy(text, code);
    replace(text, "TURNS", (job->turns + 1) / 2);
    replace(text, "BLOCKS", BLOCKS);
    replace(text, "MAY_IMPORT", job->may_import);
    if (simple(text) != 0)
        job->failed = 1;
    free(text);
}

/* Only a process with the library has these names in its global scope, or one with a
 * libpython there. */
static void take_blocks(struct job *job)
{
    static const char *const NAMES[2][2] = {{"PyObject_Malloc", "PyObject_Free"},
                                            {"PyMem_Malloc", "PyMem_Free"}};
    /* A 2.7 does not count, and from 3.12 on ours are not among those that are counted; nor
     * are those of a program that used us before, which has the names for itself. */
    int counts = strstr(job->lib, "python2") == NULL && strstr(job->mode, "+install") == NULL &&
                 used[0] == NULL;
    for (int domain = 0; domain < 2; domain++) {
        void *(*take)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, NAMES[domain][0]);
        void (*give)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, NAMES[domain][1]);
        void *blocks[BLOCKS];
        if (take == NULL || dlsym(RTLD_DEFAULT, "obmalloc_install") == NULL)
            return;
        run(job, BEFORE);
        for (int i = 0; i < BLOCKS; i++)
            memset(blocks[i] = take(90), 1, 90);
        if (counts)
            run(job, BETWEEN);
        for (int i = 0; i < BLOCKS; i++)
            give(blocks[i]);
    }
}

/* The program's own blocks, allocated before it opened a Python. */
static void use_before(void)
{
    void *(*take)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "PyMem_Malloc");
    for (int i = 0; take != NULL && i < BLOCKS; i++)
        memset(used[i] = take(10 * i), i, 10 * i);
}

static int use_after(void)
{
    void (*give)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "PyMem_Free");
    int failed = 0;
    for (int i = 0; i < BLOCKS && used[i] != NULL; i++) {
        for (int j = 0; j < 10 * i; j++)
            failed |= ((unsigned char *)used[i])[j] != (unsigned char)i;
        give(used[i]);
    }
    return failed;
}

static void *work(void *argument)
{
    struct job *job = argument;
    int is_2 = strstr(job->lib, "python2") != NULL;
    if (job->handle == NULL)
        open_library(job); /* its C library's state of a thread is that of this one */
    wchar_t *wide = calloc(1000, sizeof(wchar_t));
    mbstowcs(wide, job->home, 999);
    if (is_2)
        ((void (*)(const char *))function(job, "Py_SetPythonHome"))(job->home);
    else
        ((void (*)(const wchar_t *))function(job, "Py_SetPythonHome"))(wide);
    ((void (*)(int))function(job, "Py_InitializeEx"))(0);
    run(job, PROLOGUE);
    run(job, TURN);
    if (strstr(job->mode, "+install") != NULL) {
        int (*install)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "obmalloc_install");
        if (install != NULL)
            fprintf(stderr, "install=%d\n", install());
    }
    run(job, TURN);
    if (strncmp(job->mode, "own", 3) != 0)
        take_blocks(job);
    run(job, EPILOGUE);
    return NULL;
}

static void *work_and_finalize(void *argument)
{
    struct job *job = argument;
    work(job);
    ((void (*)(void))function(job, "Py_Finalize"))();
    return NULL;
}

int main(int argc, char **argv)
{
    struct job jobs[8] = {{0}};
    pthread_t threads[8];
    int count = (argc - 3) / 3, failed = 0;
    int parallel = argc > 2 && strncmp(argv[2], "parallel", 8) == 0;
    int reopened = argc > 2 && strncmp(argv[2], "reopened", 8) == 0, globals = 0;
    if (argc > 2 && strstr(argv[2], "+used") != NULL)
        use_before();
    if (count < 1 || count > 8)
        return 3;
    for (int i = 0; i < count; i++) {
        jobs[i].turns = atoi(argv[1]);
        jobs[i].mode = argv[3 + 3 * i];
        jobs[i].lib = argv[4 + 3 * i];
        jobs[i].home = argv[5 + 3 * i];
        globals += strncmp(jobs[i].mode, "global", 6) == 0;
        if (!reopened && strncmp(jobs[i].mode, "own", 3) != 0)
            open_library(&jobs[i]);
    }
    for (int i = 0; i < count; i++) {
        jobs[i].may_import = (globals == 0 || strncmp(jobs[i].mode, "global", 6) == 0) &&
                             strstr(jobs[i].mode, "+bare") == NULL;
        if (reopened)
            open_library(&jobs[i]);
        pthread_create(&threads[i], NULL, reopened ? work_and_finalize : work, &jobs[i]);
        if (!parallel)
            pthread_join(threads[i], NULL);
        if (reopened)
            dlclose(jobs[i].handle);
    }
    for (int i = 0; i < count; i++) {
        if (parallel)
            pthread_join(threads[i], NULL);
        failed |= jobs[i].failed;
    }
    failed |= use_after();
    puts(failed ? "failed" : "all done");
    fflush(stdout);
    _exit(failed);
}
