"""Filters of system calls (seccomp), as sandboxes install them: a refused call ends the process.
For CPython 2.7 and later, without root."""
import ctypes
import os
import struct

# By name, on x86-64.
NUMBERS = {
    'read': 0, 'write': 1, 'open': 2, 'close': 3, 'fstat': 5, 'lseek': 8, 'mmap': 9, 'mprotect': 10,
    'munmap': 11, 'brk': 12, 'rt_sigaction': 13, 'rt_sigprocmask': 14, 'rt_sigreturn': 15,
    'ioctl': 16, 'pread64': 17, 'pwrite64': 18, 'access': 21, 'select': 23, 'sched_yield': 24,
    'mremap': 25, 'mincore': 27, 'madvise': 28, 'dup': 32, 'getpid': 39, 'clone': 56, 'fork': 57,
    'vfork': 58, 'execve': 59, 'exit': 60, 'wait4': 61, 'kill': 62, 'fcntl': 72, 'ftruncate': 77,
    'getrusage': 98, 'sysinfo': 99, 'times': 100, 'getppid': 110, 'sigaltstack': 131,
    'prctl': 157, 'arch_prctl': 158, 'getrlimit': 97, 'gettid': 186, 'futex': 202,
    'sched_getparam': 143, 'sched_setscheduler': 144, 'sched_getscheduler': 145,
    'sched_getaffinity': 204, 'getdents64': 217, 'set_tid_address': 218, 'clock_gettime': 228,
    'clock_nanosleep': 230, 'exit_group': 231, 'tgkill': 234, 'openat': 257, 'newfstatat': 262,
    'readlink': 89, 'getcwd': 79, 'getuid': 102, 'getgid': 104, 'geteuid': 107, 'getegid': 108,
    'pselect6': 270, 'set_robust_list': 273, 'prlimit64': 302, 'getrandom': 318,
    'membarrier': 324,
    'memfd_create': 319, 'statx': 332, 'rseq': 334, 'clone3': 435, 'close_range': 436,
    'mlockall': 151, 'statfs': 137, 'poll': 7, 'nanosleep': 35, 'uname': 63, 'dup2': 33,
    'pipe2': 293, 'epoll_create1': 291, 'stat': 4, 'lstat': 6, 'getdents': 78, 'readlinkat': 267,
}
KNOWN = os.uname()[4] == 'x86_64'      # `platform` starts a process for that

LOAD_NUMBER = (0x20, 0, 0, 0)       # BPF_LD | BPF_W | BPF_ABS, the call's number
IF_EQUAL, RETURN = 0x15, 0x06       # BPF_JMP | BPF_JEQ | BPF_K; BPF_RET | BPF_K
ALLOW, KILL = 0x7fff0000, 0x80000000


def install(names, if_named, else_, of_all=False):
    """Installs a filter that answers these calls with `if_named` and others with `else_`, for the
    calling thread and its children, or `of_all` threads."""
    numbers = [NUMBERS[name] for name in names]
    steps = [LOAD_NUMBER]
    for at, number in enumerate(numbers):
        steps.append((IF_EQUAL, len(numbers) - at, 0, number))
    steps += [(RETURN, 0, 0, else_), (RETURN, 0, 0, if_named)]
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))

    class Program(ctypes.Structure):
        _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]

    program = Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp, set_filter, of_all_threads, no_new_privileges = 317, 1, 1, 38
    if (libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0
            or libc.syscall(seccomp, set_filter, of_all_threads if of_all else 0,
                            ctypes.byref(program)) != 0):
        raise OSError(ctypes.get_errno(), 'no filter here')


def deny(*names, **of):
    install(names, KILL, ALLOW, **of)


def allow_only(*names):
    install(names, ALLOW, KILL)
