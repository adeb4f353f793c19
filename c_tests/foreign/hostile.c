/* ways: so a pre
 *
 * Values that are no block of any allocator: tiny numbers, non-canonical addresses, addresses of
 * pools with high bits set. They must not pass for blocks of a pool: they are forwarded to the C
 * library, which may abort or fault.
 *
 * Asserted, for free and realloc in all domains, each in a child process:
 *  - it ends by SIGABRT, or by a fault in the C library's code (the library's own lookup of an
 *    address must not touch the memory there), or
 *  - it survives, and then all blocks are intact, none is allocated twice, and neither is the odd
 *    value. Surviving with damage is the failure. */
#include "harness.h"
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { LIVE = 300, SIZE = 48, DAMAGED = 101, FAULT_IN_LIBC = 102, FAULT_ELSEWHERE = 103 };

#if defined(__aarch64__)
enum { ADDRESS_BITS = 48 }; /* of an address in user space */
#define INSTRUCTION(context) ((context)->uc_mcontext.pc)
#else
enum { ADDRESS_BITS = 47 };
#define INSTRUCTION(context) ((context)->uc_mcontext.gregs[REG_RIP])
#endif

static void *live[LIVE];

struct attempt {
    const struct domain *domain;
    bool resize;
    uintptr_t value;
};

static void on_fault(int signal, siginfo_t *info, void *context)
{
    Dl_info where = {0};
    void *pc = (void *)INSTRUCTION((ucontext_t *)context);
    Dl_info libc = {0};
    dladdr(pc, &where);
    dladdr(dlsym(RTLD_DEFAULT, "qsort"), &libc); /* glibc's name is libc.so.6, musl's its loader's */
    _exit(where.dli_fbase && where.dli_fbase == libc.dli_fbase ? FAULT_IN_LIBC : FAULT_ELSEWHERE);
}

static bool all_well(uintptr_t value)
{
    static void *more[LIVE * 3];
    bool well = true;
    for (size_t i = 0; i < LIVE; i++)
        well &= holds(live[i], SIZE, i);
    for (size_t i = 0; i < LIVE * 3; i++) {
        well &= (more[i] = obj.malloc(SIZE)) != NULL && (uintptr_t)more[i] != value;
        fill(more[i], SIZE, i + 1);
    }
    for (size_t i = 0; i < LIVE; i++)
        well &= holds(live[i], SIZE, i);
    for (size_t i = 0; i < LIVE * 3; i++) {
        well &= holds(more[i], SIZE, i + 1);
        obj.free(more[i]);
    }
    for (size_t i = 0; i < LIVE; i++)
        obj.free(live[i]);
    return well;
}

static void try(void *argument)
{
    const struct attempt *a = argument;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    freopen("/dev/null", "w", stderr); /* the C library's own complaints */
    if (a->resize)
        a->domain->realloc((void *)a->value, 100);
    else
        a->domain->free((void *)a->value);
    if (!all_well(a->value))
        _exit(DAMAGED);
}

static void never_ours(const char *what, uintptr_t value)
{
    STEP(what)
        FOR_EACH_DOMAIN(d)
            for (int resize = 0; resize < 2; resize++) {
                struct attempt attempt = {d, resize, value};
                int status = in_child(try, &attempt);
                int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
                bool fine = code == 0 || code == FAULT_IN_LIBC ||
                            (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
                if (!fine)
                    fprintf(stderr, "%s of %s: %s, wait status %#x\n",
                            resize ? "realloc" : "free", what,
                            code == DAMAGED           ? "blocks damaged"
                            : code == FAULT_ELSEWHERE ? "fault outside the C library"
                                                      : "unexpected end",
                            (unsigned)status);
                CHECK(fine);
            }
}

static void hostile_pointers(void)
{
    for (size_t i = 0; i < LIVE; i++)
        fill(live[i] = obj.malloc(SIZE), SIZE, i);
    uintptr_t ours = (uintptr_t)live[LIVE / 2], top = (uintptr_t)1 << 63;

    never_ours("1", 1);
    never_ours("8", 8);
    never_ours("16", 16);
    never_ours("64 KiB", 1 << 16);
    never_ours("2 MiB", 1 << 21);
    never_ours("the last address", UINTPTR_MAX);
    never_ours("the last but 15", UINTPTR_MAX - 15);
    never_ours("the lower half's end", ((uintptr_t)1 << ADDRESS_BITS) - 16);
    never_ours("just beyond the lower half", (uintptr_t)1 << ADDRESS_BITS);
    never_ours("the upper half's begin", UINTPTR_MAX << ADDRESS_BITS);
    never_ours("non-canonical", top + 0x1000);
    for (int bit = ADDRESS_BITS; bit < 64; bit++) {
        char what[40];
        snprintf(what, sizeof what, "ours with bit %d set", bit);
        never_ours(what, ours | (uintptr_t)1 << bit);
    }
    never_ours("ours, all high bits set", ours | UINTPTR_MAX << ADDRESS_BITS);
    never_ours("this program's code", (uintptr_t)try);
    never_ours("the stack", (uintptr_t)&ours & ~(uintptr_t)15);

    /* An address that is mapped by nobody, and one that may not be read. */
    void *page = mmap(NULL, 4 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    never_ours("a page that may not be read", (uintptr_t)page + (2 << 20));
    munmap(page, 4 << 20);
    never_ours("a page that is gone", (uintptr_t)page + (2 << 20));
    STEP("the parent's blocks") CHECK(all_well(0));
}

CASES({"hostile-pointers", hostile_pointers});
