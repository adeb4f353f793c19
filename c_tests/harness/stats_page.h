/* The statistics page and snapshots, as format/src/layout.rs has them. */
#ifndef STATS_PAGE_H
#define STATS_PAGE_H

#include "stats.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { STATS_PAGE_BYTES = 65536, CLASSES = 112 };

struct page_class {
    uint64_t size, pools, full, live, in_magazines, free, resident;
};

struct page_statistics {
    uint64_t made_ms;
    uint32_t pid, os_page;
    char version[32], host[32];
    struct { uint64_t size, in_use, empty, mapped_total, unmapped_total, highwater; } arenas;
    struct { uint64_t size, used, full, free, lanes; } pools;
    struct { uint64_t from_os, metadata, live, requested, in_magazines, free_in_pools; } bytes;
    struct {
        uint64_t total, live, in_magazines, free_in_pools, empty_pools, metadata, returned_total;
    } resident;
    struct { uint64_t served_below_total; int64_t blocks_live; } large;
    uint64_t libc_in_use, libc_kept, rss, threads, misses;
    struct page_class classes[CLASSES];
};

struct stats_page {
    char magic[8];
    uint32_t version, page_bytes, pid;
    _Atomic uint32_t sequence, request, answered, wanted, thread, snapshot_sequence, snapshot_error;
    _Atomic uint64_t snapshot_bytes;
    uint64_t spare[8];
    struct page_statistics statistics;
};

struct map_header {
    char magic[8];
    uint32_t version, header_bytes;
    uint64_t real_ms, arenas, pools, pages, mappings, types_offset, types_bytes;
    struct page_statistics statistics;
};
struct map_arena { uint64_t address, bytes, first_pool; uint32_t pools, flags; };
struct map_pool {
    uint64_t address, first_page;
    uint16_t class, pages;
    uint32_t block_bytes, blocks, taken, first_block, spare;
};
struct map_page { uint16_t taken_bytes, blocks; uint8_t flags, spare[3]; };
struct map_mapping { uint64_t address, bytes; uint32_t kind, spare; };
enum { PAGE_RESIDENT = 1, PAGE_RETURNED = 2, PAGE_IDLE = 4, NO_CLASS = 0xFFFF };

_Static_assert(sizeof(struct page_statistics) == 6600, "as in layout.rs");
_Static_assert(offsetof(struct stats_page, statistics) == 120, "as in layout.rs");
_Static_assert(sizeof(struct map_header) == 6672, "as in layout.rs");
_Static_assert(sizeof(struct map_arena) == 32 && sizeof(struct map_pool) == 40, "as in layout.rs");
_Static_assert(sizeof(struct map_page) == 8, "as in layout.rs");

/* Where the page of a process can be opened; false if it has none. */
static inline bool page_path(pid_t pid, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    bool found = false;
    for (struct dirent *entry; folder && !found && (entry = readdir(folder));) {
        char target[PATH_MAX];
        snprintf(path, PATH_MAX, "/proc/%d/fd/%s", (int)pid, entry->d_name);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = 0;
        found = strcmp(target, "/memfd:obmalloc-live (deleted)") == 0;
    }
    if (folder)
        closedir(folder);
    return found;
}

static inline struct stats_page *page_open(pid_t pid)
{
    char path[PATH_MAX];
    for (int tries = 0; tries < 2000; tries++, usleep(1000)) {
        int fd = page_path(pid, path) ? open(path, O_RDWR | O_CLOEXEC) : -1;
        if (fd < 0)
            continue;
        void *p = mmap(NULL, STATS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (p != MAP_FAILED && memcmp(p, "OBMALIVE", 8) == 0)
            return p;
    }
    return NULL;
}

/* Whether the page is answered within some seconds. */
static inline bool page_request(struct stats_page *page, uint32_t wanted)
{
    atomic_fetch_or(&page->wanted, wanted);
    uint32_t ticket = atomic_fetch_add(&page->request, 1) + 1;
    syscall(SYS_futex, &page->request, FUTEX_WAKE, INT_MAX, NULL);
    for (int tries = 0; tries < 50; tries++) {
        uint32_t answered = atomic_load(&page->answered);
        if ((int32_t)(answered - ticket) >= 0)
            return true;
        struct timespec time = {0, 100 * 1000 * 1000};
        syscall(SYS_futex, &page->answered, FUTEX_WAIT, answered, &time);
    }
    return false;
}

/* The statistics, whole: false if they are written again and again. */
static inline bool page_read(struct stats_page *page, struct page_statistics *to)
{
    for (int tries = 0; tries < 100000; tries++) {
        uint32_t before = atomic_load_explicit(&page->sequence, memory_order_acquire);
        memcpy(to, &page->statistics, sizeof *to);
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 && before == atomic_load(&page->sequence))
            return true;
        sched_yield();
    }
    return false;
}

/* Whether a page's numbers agree with one another. */
static inline bool page_agrees(const struct page_statistics *s)
{
    uint64_t live = 0, in_magazines = 0, pools = 0, resident = 0;
    for (int i = 0; i < CLASSES; i++) {
        const struct page_class *c = &s->classes[i];
        live += c->live * c->size;
        in_magazines += c->in_magazines * c->size;
        pools += c->pools;
        resident += c->resident;
    }
    return live == s->bytes.live && live == s->resident.live &&
           in_magazines == s->resident.in_magazines && pools == s->pools.used + s->pools.full &&
           resident == s->resident.live + s->resident.in_magazines + s->resident.free_in_pools &&
           s->resident.total == resident + s->resident.empty_pools + s->resident.metadata;
}

#endif
