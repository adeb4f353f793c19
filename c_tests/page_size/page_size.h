/* A machine with larger pages, simulated: in a program that includes this, or with
 * it preloaded, the library, and nobody else, finds OS pages of SIMULATED_PAGE
 * bytes. Every address and length that it hands to the kernel must be a multiple
 * of that, or the program ends with a message. The kernel's own pages stay as they
 * are. */
#ifndef PAGE_SIZE_H
#define PAGE_SIZE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern size_t obmalloc_trim(size_t keep) __attribute__((weak));

static size_t simulated_page(void)
{
    const char *text = getenv("SIMULATED_PAGE");
    return text ? strtoul(text, NULL, 10) : 4096;
}

#define NEXT(function)                                       \
    static __typeof__(function) *next;                       \
    if (next == NULL)                                        \
        *(void **)&next = dlsym(RTLD_NEXT, #function)

/* Whether it is the library that calls, or the program that it is linked into. */
static bool is_ours(const void *caller)
{
    static const void *library;
    Dl_info info;
    if (library == NULL && obmalloc_trim && dladdr((void *)obmalloc_trim, &info))
        library = info.dli_fbase;
    return library && dladdr(caller, &info) && info.dli_fbase == library;
}

static void check(const char *what, uintptr_t start, size_t length)
{
    const size_t page = simulated_page();
    if (start % page == 0 && length % page == 0 && length > 0)
        return;
    fprintf(stderr, "%s(%#zx, %#zx): not whole pages of %zu bytes\n", what, (size_t)start,
            length, page);
    abort();
}

/* ---- the library's arenas, as the kernel hears of them ---- */

static struct { uintptr_t start; size_t length; } arenas[1024];
static pthread_mutex_t arenas_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned arenas_noted __attribute__((unused)); /* in all */

/* Enters one; with the length 0 takes it out. */
static void note_arena(uintptr_t start, size_t length)
{
    pthread_mutex_lock(&arenas_lock);
    size_t i = 0;
    while (i < 1023 && arenas[i].start != (length ? 0 : start))
        i++;
    arenas[i].start = length ? start : 0;
    arenas[i].length = length;
    arenas_noted += length > 0;
    pthread_mutex_unlock(&arenas_lock);
}

/* ---- what the library calls ---- */

static unsigned asked_for_page __attribute__((unused));

long sysconf(int name)
{
    NEXT(sysconf);
    const bool simulated = name == _SC_PAGESIZE && is_ours(__builtin_return_address(0));
    asked_for_page += simulated;
    return simulated ? (long)simulated_page() : next(name);
}

void *mmap(void *address, size_t length, int access, int flags, int fd, off_t offset)
{
    NEXT(mmap);
    const size_t page = simulated_page();
    if (page <= (size_t)getpagesize() || fd >= 0 || !is_ours(__builtin_return_address(0)))
        return next(address, length, access, flags, fd, offset);
    check("mmap", 0, length);
    if (length > SIZE_MAX / 2)
        return MAP_FAILED;
    char *wide = next(address, length + page, access, flags, fd, offset);
    if (wide == MAP_FAILED)
        return MAP_FAILED;
    /* Such a kernel's mappings begin at its pages. */
    char *start = wide + (-(uintptr_t)wide & (page - 1));
    if (start > wide)
        syscall(SYS_munmap, wide, (size_t)(start - wide));
    syscall(SYS_munmap, start + length, (size_t)(wide + page - start));
    return start;
}

int munmap(void *address, size_t length)
{
    NEXT(munmap);
    if (is_ours(__builtin_return_address(0))) {
        check("munmap", (uintptr_t)address, length);
        note_arena((uintptr_t)address, 0);
    }
    return next(address, length);
}

int mprotect(void *address, size_t length, int access)
{
    NEXT(mprotect);
    if (is_ours(__builtin_return_address(0)))
        check("mprotect", (uintptr_t)address, length);
    return next(address, length, access);
}

int mincore(void *address, size_t length, unsigned char *resident)
{
    NEXT(mincore);
    if (is_ours(__builtin_return_address(0)))
        check("mincore", (uintptr_t)address, length);
    return next(address, length, resident);
}

/* The kernel rounds the length of mincore up, but not the address. */
long syscall(long number, ...)
{
    NEXT(syscall);
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_mincore && is_ours(__builtin_return_address(0)))
        check("mincore", (uintptr_t)a[0], simulated_page());
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int madvise(void *address, size_t length, int advice)
{
    NEXT(madvise);
    if (is_ours(__builtin_return_address(0))) {
        check("madvise", (uintptr_t)address, length);
        if (advice == MADV_NOHUGEPAGE)
            note_arena((uintptr_t)address, length);
    }
    return next(address, length, advice);
}

#endif
