/* refuse ERROR CALL ... -- PROGRAM ARGUMENT ...
 *
 * Runs the program under a seccomp filter that lets these system calls fail with the
 * error, as sandboxes do: in it and in all its children. The word "threads" stands
 * for each call that starts one. Exit status 77 if no filter can be installed. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned number;
} calls[] = {
    {"getcpu", SYS_getcpu},         {"madvise", SYS_madvise},
    {"membarrier", SYS_membarrier}, {"memfd_create", SYS_memfd_create},
    {"mremap", SYS_mremap},         {"prctl", SYS_prctl},
    {"sched_yield", SYS_sched_yield}, {"tgkill", SYS_tgkill},
};

static struct sock_filter code[64];
static unsigned short length;

static void add(unsigned short what, unsigned k, unsigned char yes, unsigned char no)
{
    code[length++] = (struct sock_filter)BPF_JUMP(what, k, yes, no);
}

static void refuse(unsigned error)
{
    add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error, 0, 0);
}

/* clone has its flags in the first argument; clone3 has them in memory, which a filter cannot
 * read: without clone3 the C library calls clone. */
static void refuse_threads(unsigned error)
{
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
    refuse(ENOSYS);
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4);
    add(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]), 0, 0);
    add(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1);
    refuse(error);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
}

static void refuse_call(const char *name, unsigned error)
{
    if (strcmp(name, "threads") == 0) {
        refuse_threads(error);
        return;
    }
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strcmp(name, calls[i].name) == 0) {
            add(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
            refuse(error);
            return;
        }
    fprintf(stderr, "no call %s is known\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    int next = 2;
    const unsigned error = argc < 2 ? 0 : strcmp(argv[1], "EPERM") == 0 ? EPERM
                         : strcmp(argv[1], "ENOSYS") == 0 ? ENOSYS
                         : strcmp(argv[1], "EAGAIN") == 0 ? EAGAIN : 0;
    add(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
    for (; next < argc && strcmp(argv[next], "--") != 0 && length < 50; next++)
        refuse_call(argv[next], error);
    if (error == 0 || next + 1 >= argc) {
        fprintf(stderr, "refuse ERROR CALL ... -- PROGRAM ARGUMENT ...\n");
        return 2;
    }
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    const struct sock_fprog program = {length, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("no filter");
        return 77;
    }
    execv(argv[next + 1], argv + next + 1);
    perror(argv[next + 1]);
    return 127;
}
