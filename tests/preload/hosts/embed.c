/* A program that embeds Python: linked against libpython, or opening it when it runs.
 *
 *   embed [-E...] LIBPYTHON|- global|local STEP...
 *
 * "-" means that libpython is linked. The steps:
 *   init            Py_InitializeEx(0)
 *   finalize        Py_FinalizeEx(), which must return 0; Py_Finalize() in 2.7
 *   run CODE        fails the program if CODE raises
 *   install         obmalloc_install(); prints install=N
 *   stats           prints stats=JSON, if the library is in the process
 *   grab N SIZE     N blocks by the global name PyObject_Malloc, as an extension
 *   drop            all of them, by PyObject_Free
 *   hooks           PyMem_SetupDebugHooks()
 *   overflow N      a block of N bytes by PyMem_Malloc, one byte more written, freed
 *   foreign N       a block of N bytes by PyMem_Malloc, freed by PyObject_Free
 *
 * -DLINKED calls obmalloc_install by name: the library comes by -lobmalloc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef LINKED
extern int obmalloc_install(void);
#endif

static void *python;       /* from dlopen(), or the global scope */
static void **blocks;
static int block_count;

static void *in_python(const char *name)
{
    void *symbol = dlsym(python, name);
    if (symbol == NULL) {
        fprintf(stderr, "embed: no %s\n", name);
        exit(20);
    }
    return symbol;
}

/* As in an extension module: the global scope first, where a preloaded library is, then the
 * library that it was linked to. */
static void *global(const char *name)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    return symbol ? symbol : dlsym(python, name);
}

static void run(const char *code)
{
    int (*run_string)(const char *, void *) = in_python("PyRun_SimpleStringFlags");
    if (run_string(code, NULL) != 0)
        exit(10);
}

static void finalize(void)
{
    int (*finalize_ex)(void) = dlsym(python, "Py_FinalizeEx");
    if (finalize_ex == NULL)
        ((void (*)(void))in_python("Py_Finalize"))();
    else if (finalize_ex() != 0)
        exit(11);
}

static void install(void)
{
#ifdef LINKED
    int code = obmalloc_install();
#else
    int (*by_name)(void) = dlsym(RTLD_DEFAULT, "obmalloc_install");
    int code = by_name ? by_name() : -1;
#endif
    printf("install=%d\n", code);
}

static void stats(void)
{
    static char text[1 << 20];
    size_t (*json)(char *, size_t) = dlsym(RTLD_DEFAULT, "obmalloc_stats_json");
    if (json && json(text, sizeof text) < sizeof text)
        printf("stats=%s\n", text);
}

static void grab(int count, size_t size)
{
    void *(*allocate)(size_t) = global("PyObject_Malloc");
    blocks = realloc(blocks, (block_count + count) * sizeof *blocks);
    while (count-- > 0) {
        void *p = allocate(size);
        if (p == NULL)
            exit(21);
        blocks[block_count++] = memset(p, count, size);
    }
}

static void drop(void)
{
    void (*release)(void *) = global("PyObject_Free");
    while (block_count > 0)
        release(blocks[--block_count]);
}

static void mistake(int overflow, size_t size)
{
    void *(*allocate)(size_t) = global("PyMem_Malloc");
    void (*release)(void *) = global(overflow ? "PyMem_Free" : "PyObject_Free");
    char *block = allocate(size);
    memset(block, 1, size + overflow);
    release(block);
}

int main(int argc, char **argv)
{
    while (argc > 1 && strncmp(argv[1], "-E", 2) == 0)
        argc--, argv++;             /* options of this program, not of Python */
    if (argc < 3)
        return 22;
    int scope = strcmp(argv[2], "local") == 0 ? RTLD_LOCAL : RTLD_GLOBAL;
    python = strcmp(argv[1], "-") == 0 ? RTLD_DEFAULT : dlopen(argv[1], RTLD_NOW | scope);
    if (python == NULL && strcmp(argv[1], "-") != 0) {
        fprintf(stderr, "embed: %s\n", dlerror());
        return 23;
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    for (char **step = argv + 3; *step; step++) {
        if (strcmp(*step, "init") == 0)
            ((void (*)(int))in_python("Py_InitializeEx"))(0);
        else if (strcmp(*step, "finalize") == 0)
            finalize();
        else if (strcmp(*step, "run") == 0 && step[1])
            run(*++step);
        else if (strcmp(*step, "install") == 0)
            install();
        else if (strcmp(*step, "stats") == 0)
            stats();
        else if (strcmp(*step, "grab") == 0 && step[1] && step[2])
            grab(atoi(step[1]), atoi(step[2])), step += 2;
        else if (strcmp(*step, "drop") == 0)
            drop();
        else if (strcmp(*step, "hooks") == 0)
            ((void (*)(void))in_python("PyMem_SetupDebugHooks"))();
        else if (strcmp(*step, "overflow") == 0 && step[1])
            mistake(1, atoi(*++step));
        else if (strcmp(*step, "foreign") == 0 && step[1])
            mistake(0, atoi(*++step));
        else
            return 24;
    }
    return 0;
}
