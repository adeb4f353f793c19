/* ways: so a pre
 *
 * The kernel refuses mappings, all of them or some: the C library serves the requests, and fewer
 * than one request in twenty makes a system call. A filter of system calls passes each anonymous
 * mmap to a handler, which counts it and lets it fail or succeed. glibc's malloc falls back to brk;
 * musl's needs mappings, which are smaller than the library's: there the small ones succeed. */
#include "stats.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

/* LET_PASS is an offset, unused by anonymous mappings, of whole OS pages. */
enum { BLOCKS = 60000, LET_PASS = 5 << 16 };

#ifdef __GLIBC__
enum { LEAST = 0 }; /* bytes of a mapping that counts */
#else
enum { LEAST = 256 << 10 };
#endif

static int fails_in_ten; /* mmaps of ten that fail */
static unsigned long calls, failed;

static void on_mmap(int signal, siginfo_t *info, void *context)
{
    ucontext_t *at = context;
#if defined(__x86_64__)
    greg_t *r = at->uc_mcontext.gregs;
    long args[] = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8]};
#else
    unsigned long long *r = at->uc_mcontext.regs;
    long args[] = {r[0], r[1], r[2], r[3], r[4]};
#endif
    long result = -ENOMEM;
    if (args[1] >= LEAST && (int)(calls++ % 10) < fails_in_ten) {
        failed++;
    } else {
        int before = errno;
        result = syscall(SYS_mmap, args[0], args[1], args[2], args[3], args[4], LET_PASS);
        result = result == -1 ? -errno : result;
        errno = before;
    }
#if defined(__x86_64__)
    r[REG_RAX] = result;
#else
    r[0] = result;
#endif
}

/* False where a process may not filter its calls. */
static bool filter(void)
{
    struct sigaction action = {.sa_sigaction = on_mmap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
#define LOAD(what) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, what))
    struct sock_filter rules[] = {
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 5),
        LOAD(args[3]), /* the flags */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_ANONYMOUS, 0, 3),
        LOAD(args[5]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LET_PASS, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
           && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static char *blocks[2 * BLOCKS];

/* Fills the first or the second half of the blocks. */
static void allocate(int half, int fails)
{
    fails_in_ten = fails;
    calls = failed = 0;
    unsigned none = 0;
    for (int i = half * BLOCKS; i < (half + 1) * BLOCKS; i++) {
        size_t n = 1 + i * 37 % SMALL_MAX;
        blocks[i] = i % 3 == 0   ? obj.malloc(n)
                    : i % 3 == 1 ? mem.calloc(n, 1)
                                 : obj.realloc(obj.malloc(n / 2), n);
        none += blocks[i] == NULL;
        if (blocks[i])
            fill(blocks[i], n, i);
    }
    CHECK(none == 0);
}

static void free_half(int half)
{
    unsigned bad = 0;
    for (int i = half * BLOCKS; i < (half + 1) * BLOCKS; i++) {
        bad += !holds(blocks[i], 1 + i * 37 % SMALL_MAX, i);
        obj.free(blocks[i]);
    }
    CHECK(bad == 0);
}

/* The library's memory, by its own account. */
static unsigned long arenas_now(void)
{
    read_stats();
    return stat_of("arenas", "in_use");
}

static void *in_a_thread(void *unused)
{
    char *p = obj.malloc(50);
    CHECK(p != NULL);
    obj.free(p);
    return NULL;
}

static void refused(void)
{
    if (!filter())
        skip("no filter of system calls is allowed here");
    /* None can be had, from the first request on. */
    allocate(0, 10);
    CHECK(failed > 0 && failed == calls);
    CHECK(calls < BLOCKS / 20);
    CHECK(arenas_now() == 0);
    /* All can, while what came before is in use. */
    allocate(1, 0);
    CHECK(calls < BLOCKS / 20 && arenas_now() > 4);
    free_half(1);
    free_half(0);
    obmalloc_trim(0);
    /* Half of them can. */
    allocate(0, 5);
    CHECK(failed > 0 && calls < BLOCKS / 20);
    /* A thread has no magazines while there is no memory for them; another one has. */
    for (int fails = 10; fails >= 0; fails -= 10) {
        fails_in_ten = 0;
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, in_a_thread, NULL) == 0);
        fails_in_ten = fails;
        CHECK(pthread_join(thread, NULL) == 0);
    }
    allocate(1, 0);
    free_half(0);
    free_half(1);
}

/* A helper thread would start with all signals blocked, and so with the filter's. */
CASES({"refused-mappings", refused, "OBMALLOC_BACKGROUND_THREAD=0"});
