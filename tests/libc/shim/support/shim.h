/* The part of glibc's test support that its malloc tests use, in our own words. */
#ifndef SHIM_H
#define SHIM_H
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int shim_failures;

#define SHIM_SAY(...) \
    (printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), putchar('\n'), fflush(stdout))
#define SHIM_MUST(what) \
    do { \
        if (!(what)) { \
            SHIM_SAY("failed: %s (%s)", #what, strerror(errno)); \
            exit(1); \
        } \
    } while (0)

#define TEST_VERIFY(what) \
    ((what) ? (void)0 : (void)(shim_failures++, SHIM_SAY("not true: %s", #what)))
#define TEST_VERIFY_EXIT(what) SHIM_MUST(what)
#define TEST_COMPARE(left, right) TEST_VERIFY((left) == (right))
#define FAIL(...) (shim_failures++, SHIM_SAY(__VA_ARGS__))
#define FAIL_RET(...) return (SHIM_SAY(__VA_ARGS__), 1)
#define FAIL_EXIT1(...) (SHIM_SAY(__VA_ARGS__), exit(1))
#define FAIL_EXIT(status, ...) (SHIM_SAY(__VA_ARGS__), exit(status))
#define FAIL_UNSUPPORTED(...) (SHIM_SAY(__VA_ARGS__), exit(77))

#define array_length(array) (sizeof(array) / sizeof((array)[0]))
#define DEFAULT_TIMEOUT 10 /* seconds */
#define MALLOC_ALIGNMENT 16
#define MALLOC_ALIGN_MASK (MALLOC_ALIGNMENT - 1)
#define DIAG_PUSH_NEEDS_COMMENT _Pragma("GCC diagnostic push")
#define DIAG_POP_NEEDS_COMMENT _Pragma("GCC diagnostic pop")
#define DIAG_IGNORE_NEEDS_COMMENT(version, option)
#define DIAG_IGNORE_Os_NEEDS_COMMENT(version, option)

#define SHIM_UNUSED __attribute__((unused)) static
#define SHIM_THREAD(name, parameters, ...) \
    SHIM_UNUSED void x##name parameters \
    { \
        errno = name(__VA_ARGS__); \
        SHIM_MUST(errno == 0); \
    }
SHIM_THREAD(pthread_barrier_init,
            (pthread_barrier_t * b, const pthread_barrierattr_t *a, unsigned n), b, a, n)
SHIM_THREAD(pthread_barrier_destroy, (pthread_barrier_t * b), b)
SHIM_THREAD(pthread_barrierattr_init, (pthread_barrierattr_t * a), a)
SHIM_THREAD(pthread_barrierattr_destroy, (pthread_barrierattr_t * a), a)
SHIM_THREAD(pthread_barrierattr_setpshared, (pthread_barrierattr_t * a, int shared), a, shared)
SHIM_THREAD(pthread_kill, (pthread_t t, int signal), t, signal)

SHIM_UNUSED int xpthread_barrier_wait(pthread_barrier_t *barrier)
{
    int result = pthread_barrier_wait(barrier);
    SHIM_MUST(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
    return result;
}

SHIM_UNUSED pthread_t xpthread_create(pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    pthread_t thread;
    errno = pthread_create(&thread, attributes, run, argument);
    SHIM_MUST(errno == 0);
    return thread;
}

SHIM_UNUSED void *xpthread_join(pthread_t thread)
{
    void *result;
    errno = pthread_join(thread, &result);
    SHIM_MUST(errno == 0);
    return result;
}

SHIM_UNUSED void *xmalloc(size_t n)
{
    void *p = malloc(n);
    SHIM_MUST(p != NULL);
    return p;
}

SHIM_UNUSED void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n, size);
    SHIM_MUST(p != NULL);
    return p;
}

SHIM_UNUSED void *xmmap(void *at, size_t size, int access, int flags, int fd)
{
    void *p = mmap(at, size, access, flags, fd, 0);
    SHIM_MUST(p != MAP_FAILED);
    return p;
}

SHIM_UNUSED int xopen(const char *path, int flags, mode_t mode)
{
    int fd = open(path, flags, mode);
    SHIM_MUST(fd >= 0);
    return fd;
}

SHIM_UNUSED pid_t xfork(void)
{
    pid_t pid = fork();
    SHIM_MUST(pid >= 0);
    return pid;
}

SHIM_UNUSED void xsignal(int number, void (*handler)(int))
{
    SHIM_MUST(signal(number, handler) != SIG_ERR);
}

SHIM_UNUSED void *support_shared_allocate(size_t size)
{
    return xmmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_SHARED, -1);
}

SHIM_UNUSED void support_shared_free(void *p)
{
    (void)p; /* goes with the process */
}

SHIM_UNUSED void write_message(const char *text)
{
    ssize_t ignored = write(STDOUT_FILENO, text, strlen(text));
    (void)ignored;
}

SHIM_UNUSED void ignore_stderr(void)
{
    int null = xopen("/dev/null", O_WRONLY, 0);
    SHIM_MUST(dup2(null, STDERR_FILENO) == STDERR_FILENO);
}

SHIM_UNUSED int create_temp_file(const char *base, char **name)
{
    char path[100];
    snprintf(path, sizeof path, "/tmp/%s-XXXXXX", base);
    int fd = mkstemp(path);
    if (fd >= 0 && name)
        *name = strdup(path);
    else if (fd >= 0)
        unlink(path);
    return fd;
}
#endif
