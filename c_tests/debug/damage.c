/* ways: so a pre host
 *
 * The debug hooks find damage: CPython's picture of the block on stderr, its fatal error, and
 * abort. Each damage is done in a child process, and the child's output up to the fatal error is a
 * fact, without addresses. */
#include "hooks.h"

#if defined HOST_CPYTHON && PY_VERSION_HEX < 0x03090000
#define OLD_MESSAGES /* no function named; before 3.8, a serial number */
#endif

struct damage {
    const char *name;
    size_t n;        /* the block's size */
    enum { NONE, BEFORE, BEHIND } side;
    int at, bytes;   /* p-at or tail+at, and how many */
    int byte;        /* what is written there */
};

static const struct damage damages[] = {
    {"first byte behind", 100, BEHIND, 0, 1, 0x41},
    {"first byte behind, a string's end", 100, BEHIND, 0, 1, 0},
    {"last byte behind", 100, BEHIND, 7, 1, 0x41},
    {"all bytes behind", 100, BEHIND, 0, 8, 0xDD},
    {"byte before", 100, BEFORE, 1, 1, 0x41},
    {"all bytes before", 100, BEFORE, 7, 7, 0},
    {"first byte before", 100, BEFORE, 7, 1, 0xFE},
    {"the letter", 100, BEFORE, 8, 1, 'x'},
    {"the letter and all behind it", 100, BEFORE, 8, 8, '?'},
    {"a smaller size", 100, BEFORE, 9, 1, 96},
    {"0 bytes", 0, BEHIND, 0, 1, 0x41},
    {"0 bytes, byte before", 0, BEFORE, 1, 1, 0x41},
    {"1 byte", 1, BEHIND, 1, 1, 0x41},
    {"5 bytes", 5, BEHIND, 3, 1, 0x41},
    {"7 bytes", 7, BEHIND, 3, 1, 0x41},
    {"8 bytes", 8, BEHIND, 3, 1, 0x41},
    {"9 bytes", 9, BEHIND, 3, 1, 0x41},
    {"12 bytes", 12, BEHIND, 3, 1, 0x41},
    {"16 bytes", 16, BEHIND, 3, 1, 0x41},
    {"17 bytes", 17, BEHIND, 3, 1, 0x41},
    {"20 bytes", 20, BEHIND, 3, 1, 0x41},
    {"a medium block", 5000, BEHIND, 0, 2, 0x41},
    {"a large block", 1000000, BEHIND, 6, 2, 0x41},
};
enum { DAMAGES = sizeof damages / sizeof *damages };

struct scenario {
    const struct damage *damage;
    const struct domain *from, *to;
    bool resize, mute;
};

static void child(void *argument)
{
    const struct scenario *s = argument;
    const struct damage *damage = s->damage;
#ifdef HOST_CPYTHON /* flushes these on its way to abort, with blocks that are not dressed */
    PySys_SetObject("stdout", Py_None);
    PySys_SetObject("stderr", Py_None);
#endif
    PyMem_SetupDebugHooks();
    if (s->mute)
        close(2);
    unsigned char *p = s->from->malloc(damage->n);
    fill(p, damage->n, 0xA0);
    if (damage->side == BEFORE)
        memset(p - damage->at, damage->byte, damage->bytes);
    if (damage->side == BEHIND)
        memset(p + damage->n + damage->at, damage->byte, damage->bytes);
    if (s->resize)
        s->to->realloc(p, 50);
    else
        s->to->free(p);
    fprintf(stderr, "survived\n");
}

static bool starts(const char *line, const char *with)
{
    return strncmp(line, with, strlen(with)) == 0;
}

/* Hexadecimal numbers longer than a byte are addresses. */
static void print_line(const char *line, bool resize)
{
    char text[200], *to = text;
    while (*line && to < text + sizeof text - 10) {
        size_t digits = starts(line, "0x") ? strspn(line + 2, "0123456789abcdef") : 0;
        if (digits > 2) {
            to = stpcpy(to, "ADDRESS");
            line += 2 + digits;
        } else {
            *to++ = *line++;
        }
    }
    *to = 0;
#ifdef OLD_MESSAGES
    const char *fatal = "Fatal Python error: ";
    if (starts(text, fatal)) {
        FACT("    %s%s: %s", fatal, resize ? "_PyMem_DebugRawRealloc" : "_PyMem_DebugRawFree",
             text + strlen(fatal));
        return;
    }
#endif
    FACT("    %s", text);
}

static void print_said(char *said, bool resize)
{
    bool fatal = false;
    char *rest = said;
    for (char *line; !fatal && (line = strsep(&rest, "\n"));) {
        fatal = starts(line, "Fatal ");
#ifdef HOST_CPYTHON
        if (starts(line, "Enable tracemalloc")) {
            strsep(&rest, "\n"); /* and the empty line behind it */
            continue;
        }
        if (starts(line, "    The block was made by call #"))
            continue;
#endif
        print_line(line, resize);
    }
#ifndef HOST_CPYTHON
    CHECK(fatal && rest && *rest == 0); /* and nothing after it */
#endif
    CHECK(fatal);
}

static void found(const struct damage *damage, const struct domain *from, const struct domain *to,
                  bool resize)
{
    static char said[20000];
    struct scenario s = {damage, from, to, resize, false};
    int status = output_in_child(child, &s, said, sizeof said);
#ifdef OLD_MESSAGES /* frees faulthandler's stack on its way to abort */
    CHECK(WIFSIGNALED(status));
#else
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#endif
    FACT("%s, %s %s by %s:", damage->name, from->name, resize ? "resized" : "freed", to->name);
    print_said(said, resize);
}

/* ---- no damage, or none that CPython can describe ---- */

static void nothing_wrong(void *unused)
{
    PyMem_SetupDebugHooks();
    FOR_EACH_DOMAIN(d)
        for (int i = 0; i < DAMAGES; i++) {
            d->free(NULL);
            void *p = d->realloc(NULL, damages[i].n);
            memset(p, 0xFD, damages[i].n);
            p = d->realloc(p, damages[i].n * 2);
            memset(p, 0xDD, damages[i].n * 2);
            d->free(p);
        }
}

/* An allocator below the hooks that keeps freed blocks, filled with dead bytes, as a debugger
 * would. */
static void keep(void *ctx, void *p)
{
    (void)p;
}

static void twice(void *argument)
{
    const struct domain *d = argument;
    PyMemAllocatorEx t;
    PyMem_GetAllocator(domain_of(d), &t);
    t.free = keep;
    PyMem_SetAllocator(domain_of(d), &t);
    PyMem_SetupDebugHooks();
    void *p = d->malloc(100);
    d->free(p);
    fprintf(stderr, "once\n");
    d->free(p);
    fprintf(stderr, "survived\n");
}

static void no_damage(void)
{
    char said[20000];
    CHECK(output_in_child(nothing_wrong, NULL, said, sizeof said) == 0);
    CHECK(strcmp(said, "") == 0);
}

/* Dead bytes or a size without sense: CPython's hooks crash while they print them. */
static void only_ends(void (*body)(void *), void *argument, const char *begins)
{
    char said[20000];
    int status = output_in_child(body, argument, said, sizeof said);
    CHECK(starts(said, begins) && !strstr(said, "survived"));
    CHECK(WIFSIGNALED(status));
}

static void no_stderr(const struct domain *d)
{
    char said[20000];
    struct scenario s = {&damages[0], d, d, false, true};
    int status = output_in_child(child, &s, said, sizeof said);
    CHECK(WIFSIGNALED(status) && strcmp(said, "") == 0);
}

static void wrong_domain(void)
{
    static const struct damage whole[] = {{"wrong domain", 100, NONE, 0, 0, 0},
                                          {"wrong domain, 0 bytes", 0, NONE, 0, 0, 0},
                                          {"wrong domain, 12 bytes", 12, NONE, 0, 0, 0}};
    FOR_EACH_DOMAIN(from)
        FOR_EACH_DOMAIN(to)
            for (int i = 0; i < 3 && from != to; i++) {
                found(&whole[i], from, to, false);
                found(&whole[i], from, to, true);
            }
}

static void each_damage(void)
{
    for (int i = 0; i < DAMAGES; i++)
        FOR_EACH_DOMAIN(d)
            found(&damages[i], d, d, (i + (d == &mem)) % 2);
}

static void freed_twice(void)
{
    FOR_EACH_DOMAIN(d)
        only_ends(twice, (void *)d, "once\n");
}

static void a_size_without_sense(void)
{
    static const struct damage nuts = {"a size without sense", 100, BEFORE, 16, 2, 0x7F};
    FOR_EACH_DOMAIN(d)
        only_ends(child, &(struct scenario){&nuts, d, d, false, false}, "");
}

static void without_stderr(void)
{
    FOR_EACH_DOMAIN(d)
        no_stderr(d);
}

CASES({"damage-none", no_damage, .reads_stderr = true},
      {"damage-wrong-domain", wrong_domain, .reads_stderr = true},
      {"damage-of-each-kind", each_damage, .reads_stderr = true},
      {"damage-freed-twice", freed_twice, .reads_stderr = true},
      {"damage-a-size-without-sense", a_size_without_sense, .reads_stderr = true},
      {"damage-without-stderr", without_stderr, .reads_stderr = true});
