/* ways: so a pre host valgrind
 *
 * _PyObject_DebugMallocStats: CPython's table, equal in every character except the numbers;
 * relations between its numbers; and the numbers themselves. */
#include "arenas.h"
#include "hooks.h"

extern int _PyObject_DebugMallocStats(FILE *out);

enum { ROWS = 100 };

struct row {
    unsigned class, size;
    size_t pools, in_use, available;
};

static struct table {
    char text[20000];
    int result, rows;
    struct row row[ROWS];
} now, then;

static void read_table(struct table *t)
{
    t->text[0] = 0;
    FILE *out = fmemopen(t->text, sizeof t->text, "w");
    t->result = _PyObject_DebugMallocStats(out);
    fclose(out); /* NUL comes with it */
    t->rows = 0;
    const char *line = strstr(t->text, "\n-----");
    for (line = line ? strchr(line + 1, '\n') : NULL; line; line = strchr(line + 1, '\n')) {
        struct row *r = &t->row[t->rows];
        int length = 0;
        if (sscanf(line + 1, "%u %u %zu %zu %zu%n", &r->class, &r->size, &r->pools, &r->in_use,
                   &r->available, &length) != 5)
            break;
        char again[100];
        snprintf(again, sizeof again, "%5u %6u %11zu %15zu %13zu\n", r->class, r->size, r->pools,
                 r->in_use, r->available);
        CHECK(strncmp(line + 1, again, strlen(again)) == 0);
        CHECK(t->rows < ROWS - 1);
        t->rows++;
    }
}

static struct row row_of(const struct table *t, size_t n)
{
    for (int i = 0; i < t->rows; i++)
        if (t->row[i].size == (n + 15) / 16 * 16)
            return t->row[i];
    return (struct row){0};
}

/* The number after the label's padding and `=`; commas set it out. */
static size_t value(const char *line)
{
    size_t result = 0;
    for (const char *c = line + 36; *c && *c != '\n'; c++)
        if (*c >= '0' && *c <= '9')
            result = result * 10 + (size_t)(*c - '0');
    return result;
}

static size_t labelled(const struct table *t, const char *label)
{
    const char *line = strstr(t->text, label);
    CHECK(line != NULL);
    return line ? value(line) : 0;
}

/* ---- the form ---- */

static void check_value_line(const char *line)
{
    char digits[40], set_out[40], *to = set_out;
    int n = snprintf(digits, sizeof digits, "%zu", value(line));
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = 0;
    char again[80];
    snprintf(again, sizeof again, "%.35s=%21s\n", line, set_out);
    CHECK(strncmp(line, again, strlen(again)) == 0);
}

/* Up to the first total; runs of digits are N, and rows are left out. */
static void print_form(const struct table *t)
{
    bool in_rows = false, total = false;
    for (const char *line = t->text; *line && !total; line = strchr(line, '\n') + 1) {
        in_rows = in_rows && *line != '\n';
        if (in_rows)
            continue;
        in_rows = strncmp(line, "-----", 5) == 0;
        total = strncmp(line, "Total", 5) == 0;
        bool equals = strcspn(line, "\n") > 35 && line[35] == '=';
        if (equals)
            check_value_line(line);
        char text[100], *to = text;
        for (const char *c = line; *c != '\n' && to < text + sizeof text - 2; c++) {
            bool digit = *c >= '0' && *c <= '9';
            if (digit && to > text && to[-1] == 'N')
                continue;
            if (equals && c > line + 34)
                break;
            *to++ = digit ? 'N' : *c;
        }
        while (to > text && to[-1] == ' ')
            to--;
        *to = 0;
        FACT("[%s]", text);
    }
    CHECK(total);
}

/* ---- the numbers among each other ---- */

static void check_numbers(const struct table *t)
{
    size_t allocated = 0, available = 0;
    for (int i = 0; i < t->rows; i++) {
        const struct row *r = &t->row[i];
        CHECK(r->pools > 0 && r->size % 16 == 0);
        CHECK((r->in_use + r->available) % r->pools == 0); /* all as large as one another */
        CHECK(r->class > 31 || r->size == (r->class + 1) * 16);
        CHECK(i == 0 || (r[-1].class < r->class && r[-1].size < r->size));
        allocated += r->in_use * r->size;
        available += r->available * r->size;
    }
    CHECK(labelled(t, "# bytes in allocated blocks") == allocated);
    CHECK(labelled(t, "# bytes in available blocks") == available);

    size_t arenas, arena_size, pools, pool_size;
    const char *line = strstr(t->text, " arenas * "), *unused = strstr(t->text, " unused pools * ");
    CHECK(line && unused);
    if (!line || !unused)
        return;
    while (line[-1] != '\n')
        line--;
    while (unused[-1] != '\n')
        unused--;
    CHECK(sscanf(line, "%zu arenas * %zu bytes/arena", &arenas, &arena_size) == 2);
    CHECK(sscanf(unused, "%zu unused pools * %zu bytes", &pools, &pool_size) == 2);
    size_t total = labelled(t, "Total");
    CHECK(arenas > 0 && value(line) / arenas == arena_size); /* the mean, if they differ */
    CHECK(value(unused) == pools * pool_size && total == value(line));
    CHECK(total == allocated + available + value(unused) +
                       labelled(t, "# bytes lost to pool headers") +
                       labelled(t, "# bytes lost to quantization") +
                       labelled(t, "# bytes lost to arena alignment"));
    size_t ever = labelled(t, "# arenas allocated total");
    CHECK(labelled(t, "# arenas allocated current") == arenas);
    CHECK(ever - labelled(t, "# arenas reclaimed") == arenas);
    CHECK(labelled(t, "# arenas highwater mark") >= arenas);
    CHECK(labelled(t, "# arenas highwater mark") <= ever);
}

/* ---- the numbers and what was done ---- */

static void counted(size_t n, int blocks)
{
    static void *p[20000];
    read_table(&then);
    for (int i = 0; i < blocks; i++)
        p[i] = i % 3 ? obj.malloc(n) : i % 2 ? mem.calloc(1, n) : mem.realloc(NULL, n);
    read_table(&now);
    check_numbers(&now);
    CHECK(row_of(&now, n).in_use == row_of(&then, n).in_use + (size_t)blocks);
    for (int i = 0; i < now.rows; i++) { /* and the others are as they were */
        struct row *r = &now.row[i], old = row_of(&then, r->size);
        CHECK(r->size == row_of(&now, n).size || memcmp(r, &old, sizeof old) == 0);
    }
    for (int i = 0; i < blocks; i += 2)
        obj.free(p[i]);
    read_table(&now);
    check_numbers(&now);
    CHECK(row_of(&now, n).in_use == row_of(&then, n).in_use + (size_t)blocks / 2);
    for (int i = 1; i < blocks; i += 2)
        mem.free(p[i]);
    read_table(&now);
    check_numbers(&now);
    CHECK(row_of(&now, n).in_use == row_of(&then, n).in_use);
    FACT("%d blocks of %zu bytes", blocks, n);
}

/* Arenas that begin anywhere, so that some of each is lost. */
static void *odd_alloc(void *ctx, size_t size)
{
    char *p = malloc(size + 4096);
    return ctx && p ? p + 4096 : NULL;
}

static void odd_free(void *ctx, void *p, size_t size)
{
    if (ctx && size)
        free((char *)p - 4096);
}

static void odd_arenas(void)
{
    source_over((PyObjectArenaAllocator){&now, odd_alloc, odd_free});
    use_up(BLOCK);
    unsigned made = source.made;
    counted(BLOCK, 20000);
    CHECK(source.made > made + 5);
    read_table(&now);
    CHECK(labelled(&now, "# arenas allocated total") >= source.made);
    CHECK(labelled(&now, "# arenas reclaimed") >= source.freed);
    CHECK(labelled(&now, "# arenas allocated current") >= source.live);
    CHECK(labelled(&now, "# bytes lost to arena alignment") >= source.live * 4096);
}

/* ---- whose table it is ---- */

static void fact(const char *what)
{
    read_table(&now);
    CHECK((now.result == 0) == (now.text[0] == 0));
    FACT("%s: %d", what, now.result);
}

static void whose(void)
{
    struct hook hook;
    PyMemAllocatorEx first, c_library;
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &first);
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &c_library);
    fact("at first");
    hook_on(&hook, PYMEM_DOMAIN_RAW);
    fact("raw hooked");
    hook_off(&hook);
    hook_on(&hook, PYMEM_DOMAIN_MEM);
    fact("mem hooked");
    hook_off(&hook);
    hook_on(&hook, PYMEM_DOMAIN_OBJ);
    fact("obj hooked");
    CHECK(hook.all == 0);
    PyMem_SetupDebugHooks();
    fact("obj hooked below debug hooks");
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &c_library);
    fact("obj replaced");
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &first);
    PyMem_SetupDebugHooks();
    fact("obj as at first, below debug hooks");
    first.ctx = &hook;
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &first);
    fact("obj with another ctx");
}

static void form(void)
{
    void *first = obj.malloc(100);
    read_table(&now);
    FACT("result %d", now.result);
    print_form(&now);
    obj.free(first);
}

static void numbers(void)
{
    static const size_t sizes[] = {1, 16, 17, 48, 100, 256, 500, 512};
    void *first = obj.malloc(100);
    read_table(&now);
    check_numbers(&now);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        counted(sizes[i], 0);
        counted(sizes[i], 2);
        counted(sizes[i], 1000);
        counted(sizes[i], 20000);
    }
    obj.free(first);
}

static void full_device(void)
{
    FILE *full = fopen("/dev/full", "w");
    CHECK(full != NULL);
    FACT("to a full device: %d", _PyObject_DebugMallocStats(full));
    fclose(full);
}

CASES({"stats-form", form},
      {"stats-numbers", numbers, "OBMALLOC_DECAY_MS=-1"},
      {"stats-of-odd-arenas", odd_arenas},
      {"stats-whose", whose},
      {"stats-to-a-full-device", full_device});
