/* ways: so a pre
 *
 * OBMALLOC_STATS_PAGE=1: the statistics page has the numbers of obmalloc_stats_json; a reader never sees
 * it torn while threads allocate, nor parts that do not sum up; a forked child has one of its own;
 * a program that closes all descriptors gets a new one; a snapshot is exact for each page. */
#include "stats_page.h"

static struct stats_page *mine;
static char *first; /* a block of 100 bytes, there all the time */

/* Frees enough for a tick, which writes the page. */
static void tick(void)
{
    enum { MANY = 4000 };
    static void *p[MANY];
    for (int i = 0; i < MANY; i++)
        p[i] = obj.malloc(512);
    for (int i = 0; i < MANY; i++)
        obj.free(p[i]);
}

static void equal(void)
{
    struct page_statistics said;
    usleep(1200 * 1000); /* the C library is asked once in a second */
    read_stats();
    CHECK(page_request(mine, 0) && page_read(mine, &said) && page_agrees(&said));
    CHECK(mine->version == 2 && mine->page_bytes == STATS_PAGE_BYTES);
    CHECK(mine->pid == (uint32_t)getpid());
    CHECK(strcmp(said.version, obmalloc_version()) == 0 && said.host[0] == 0);
    CHECK(said.pid == (uint32_t)getpid() && said.made_ms > 0);
#define SAME(section, key) CHECK(said.section.key == (uint64_t)stat_of(#section, #key))
    SAME(arenas, size); SAME(arenas, in_use); SAME(arenas, empty); SAME(arenas, mapped_total);
    SAME(arenas, unmapped_total); SAME(arenas, highwater);
    SAME(pools, size); SAME(pools, used); SAME(pools, full); SAME(pools, free); SAME(pools, lanes);
    SAME(bytes, from_os); SAME(bytes, metadata); SAME(bytes, live); SAME(bytes, in_magazines);
    SAME(bytes, free_in_pools);
    SAME(resident, total); SAME(resident, live); SAME(resident, in_magazines);
    SAME(resident, free_in_pools); SAME(resident, empty_pools); SAME(resident, metadata);
    SAME(resident, returned_total); SAME(large, served_below_total);
    CHECK(said.bytes.requested == (uint64_t)stat_of("bytes", "live_requested_estimate"));
    CHECK(said.large.blocks_live == stat_of("large", "blocks_live"));
    CHECK(said.libc_in_use == (uint64_t)stat_of("libc", "in_use"));
    const char *all = stats_text, *end = all + strlen(all);
    CHECK((long long)said.threads == number_at(value_of(all, end, "threads")));
    CHECK((long long)said.misses == number_at(value_of(all, end, "misses")));
    for (int i = 0; i < CLASSES; i++) {
        const struct page_class *c = &said.classes[i];
        CHECK((long long)c->pools == class_stat(c->size, "pools"));
        CHECK((long long)c->live == class_stat(c->size, "blocks_live"));
        CHECK((long long)c->in_magazines == class_stat(c->size, "blocks_in_magazines"));
        CHECK((long long)c->free == class_stat(c->size, "blocks_free"));
        CHECK((long long)c->full == class_stat(c->size, "pools_full"));
        CHECK((long long)c->resident == class_stat(c->size, "resident"));
    }
}

/* ---- a reader while threads allocate ---- */

static atomic_bool over;

static void *churn(void *seed)
{
    enum { SLOTS = 5000 };
    void **p = calloc(SLOTS, sizeof *p);
    uint64_t state = (uintptr_t)seed;
    while (!over) {
        size_t i = random_below(&state, SLOTS);
        obj.free(p[i]);
        p[i] = obj.malloc(1 + random_below(&state, 600));
    }
    for (size_t i = 0; i < SLOTS; i++)
        obj.free(p[i]);
    free(p);
    return NULL;
}

/* In another process: requests the page again and again. */
static void watch(void *pid)
{
    struct stats_page *page = page_open(*(pid_t *)pid);
    CHECK(page != NULL);
    struct page_statistics said;
    for (int i = 0; page && i < 500; i++) {
        CHECK(page_request(page, 0));
        CHECK(page_read(page, &said) && page_agrees(&said));
        CHECK(said.pid == (uint32_t)*(pid_t *)pid);
        if (i % 50 == 0) {
            CHECK(page_request(page, 1));
            CHECK(page->snapshot_error == 0 && page->snapshot_bytes > 6672);
        }
    }
}

static void watched(void)
{
    pthread_t threads[3];
    pid_t me = getpid();
    over = false;
    int child[2];
    for (uintptr_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, churn, (void *)(i + 1));
    /* The fork stops the answering thread; ticks of the others start it again. */
    for (int i = 0; i < 2; i++) {
        child[i] = host_fork();
        if (child[i] == 0) {
            failures = 0;
            watch(&me);
            _exit(exit_status());
        }
    }
    for (int i = 0; i < 2; i++)
        CHECK(status_of(child[i]) == 0);
    over = true;
    join_threads(3, threads);
}

/* ---- a snapshot, and forks before it is made ---- */

enum { FORKS = 5 };

/* In another process: requests a snapshot for each byte that it reads. A fork in between delays
 * the answer; the answer is a snapshot. */
static void wait_for_snapshots(pid_t pid, int told, int ready)
{
    struct stats_page *page = page_open(pid);
    CHECK(page != NULL);
    for (char byte = 0; page && read(told, &byte, 1) == 1;) {
        uint32_t last = page->snapshot_sequence;
        atomic_fetch_or(&page->wanted, 1);
        uint32_t ticket = atomic_fetch_add(&page->request, 1) + 1;
        syscall(SYS_futex, &page->request, FUTEX_WAKE, INT_MAX, NULL);
        CHECK(write(ready, &byte, 1) == 1);
        bool answered = false;
        for (int tries = 0; tries < 30000 && !answered; tries++, usleep(500))
            answered = (int32_t)(page->answered - ticket) >= 0;
        CHECK(answered && page->snapshot_error == 0 && page->snapshot_bytes > 6672);
        CHECK(page->snapshot_sequence != last); /* a new one */
    }
}

static void nothing(void *unused) { }

static void put_off(void *unused)
{
    enum { MANY = 100000 };
    static char *p[MANY];
    for (int i = 0; i < MANY; i++) /* what takes a while */
        p[i] = obj.malloc(512);
    int tell[2], ready[2];
    CHECK(pipe(tell) == 0 && pipe(ready) == 0);
    const pid_t me = getpid(), reader = host_fork();
    if (reader == 0) {
        close(tell[1]);
        wait_for_snapshots(me, tell[0], ready[1]);
        _exit(exit_status());
    }
    for (int round = 0; round < FORKS; round++) {
        char byte = 1;
        CHECK(write(tell[1], &byte, 1) == 1 && read(ready[0], &byte, 1) == 1);
        CHECK(in_child(nothing, NULL) == 0); /* it was asked for, and nobody is there */
        usleep(300 * 1000);
        tick(); /* begins it */
        usleep((useconds_t)round * 500);
        CHECK(in_child(nothing, NULL) == 0); /* in the middle */
        usleep(300 * 1000);
        tick();
    }
    close(tell[1]);
    CHECK(status_of(reader) == 0);
    for (int i = 0; i < MANY; i++)
        obj.free(p[i]);
}

/* ---- forks ---- */

static void own_page(void *parent)
{
    char path[PATH_MAX];
    CHECK(page_path(getpid(), path)); /* at once */
    struct stats_page *page = page_open(getpid());
    CHECK(page && page != mine && page->pid == (uint32_t)getpid());
    CHECK(page && page->thread == 0); /* not right after a fork */
    struct page_statistics said;
    CHECK(page && page_read(page, &said) && page_agrees(&said));
    CHECK(said.pid == (uint32_t)getpid());
    char *kept[1000];
    for (int i = 0; i < 1000; i++)
        kept[i] = obj.malloc(400);
    usleep(300 * 1000);
    tick();
    CHECK(page && page_request(page, 0) && page_read(page, &said));
    read_stats();
    CHECK(class_stat(400, "blocks_live") >= 1000);
    for (int i = 0; i < CLASSES; i++)
        CHECK(said.classes[i].size != 400 ||
              (long long)said.classes[i].live == class_stat(400, "blocks_live"));
    for (int i = 0; i < 1000; i++)
        obj.free(kept[i]);
    /* A child of a child, and so on. */
    int *depth = parent;
    if (--*depth > 0)
        CHECK(in_child(own_page, depth) == 0);
}

static void forks(void)
{
    int depth = 3;
    CHECK(in_child(own_page, &depth) == 0);
    /* The parent's page is still the same, and answered again after a while. */
    CHECK(mine->pid == (uint32_t)getpid());
    usleep(300 * 1000);
    tick();
    CHECK(page_request(mine, 0));
}

/* ---- a program that closes what it does not know ---- */

static void closed(void *unused)
{
    for (int round = 0; round < 3; round++) {
        char path[PATH_MAX];
        for (int fd = 3; fd < 4096; fd++)
            close(fd);
        CHECK(!page_path(getpid(), path));
        int file = open("/dev/null", O_RDONLY), other = dup2(file, 1000);
        usleep(300 * 1000);
        tick();
        struct stats_page *page = page_open(getpid());
        CHECK(page && page->pid == (uint32_t)getpid());
        struct page_statistics said;
        CHECK(page && page_request(page, 0) && page_read(page, &said) && page_agrees(&said));
        CHECK(fcntl(other, F_GETFD) >= 0 && fcntl(file, F_GETFD) >= 0); /* the program's own */
    }
}

/* ---- a snapshot of known survivors ---- */

enum { BLOCKS = 20001 };
static char *survivors[BLOCKS];
static size_t survivor_size[BLOCKS];

static void *read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY);
    *size = (size_t)lseek(fd, 0, SEEK_END);
    void *bytes = malloc(*size);
    CHECK(fd >= 0 && pread(fd, bytes, *size, 0) == (ssize_t)*size);
    close(fd);
    return bytes;
}

static void compare(const char *bytes, size_t size)
{
    const struct map_header *header = (const void *)bytes;
    CHECK(memcmp(header->magic, "OBMALMAP", 8) == 0 && header->version == 2);
    CHECK(header->header_bytes >= sizeof *header && page_agrees(&header->statistics));
    const struct map_arena *arenas = (const void *)(bytes + header->header_bytes);
    const struct map_pool *pools = (const void *)(arenas + header->arenas);
    const struct map_page *pages = (const void *)(pools + header->pools);
    CHECK(size == (size_t)((const char *)(pages + header->pages) - bytes) + header->mappings * 24);
    CHECK(header->pages == header->pools * 16 && header->arenas > 0);
    unsigned *taken_bytes = calloc(header->pages, sizeof *taken_bytes);
    unsigned *blocks = calloc(header->pages, sizeof *blocks);
    uint64_t next = 0;
    for (uint64_t i = 0; i < header->arenas; i++) {
        CHECK(i == 0 || arenas[i].address >= arenas[i - 1].address + arenas[i - 1].bytes);
        CHECK(arenas[i].first_pool == next && arenas[i].flags == 0);
        next += arenas[i].pools;
        for (uint32_t j = 0; j < arenas[i].pools; j++)
            CHECK(pools[arenas[i].first_pool + j].address == arenas[i].address + j * 65536ul);
    }
    CHECK(next == header->pools);
    /* By definition, from the addresses of what has survived. */
    unsigned lost = 0, wrong = 0, returned = 0, resident = 0;
    for (int i = 0; i < BLOCKS; i++) {
        uint64_t at = (uintptr_t)survivors[i], pool = 0;
        if (at == 0)
            continue;
        while (pool < header->pools && at - pools[pool].address >= 65536)
            pool++;
        if (pool == header->pools || pools[pool].block_bytes != survivor_size[i]) {
            lost++;
            continue;
        }
        uint64_t offset = at - pools[pool].address, end = offset + survivor_size[i];
        for (uint64_t page = offset / 4096; page <= (end - 1) / 4096; page++) {
            uint64_t from = offset > page * 4096 ? offset : page * 4096;
            uint64_t to = end < (page + 1) * 4096 ? end : (page + 1) * 4096;
            taken_bytes[pools[pool].first_page + page] += to - from;
            blocks[pools[pool].first_page + page]++;
        }
    }
    const uint64_t in_os_page = (uint64_t)sysconf(_SC_PAGESIZE) / 4096; /* at most a pool */
    for (uint64_t i = 0; i < header->pages; i++) {
        bool is_empty = true; /* the OS page */
        for (uint64_t j = i - i % in_os_page; j < i - i % in_os_page + in_os_page; j++)
            is_empty = is_empty && blocks[j] == 0;
        wrong += pages[i].taken_bytes != taken_bytes[i] || pages[i].blocks != blocks[i];
        wrong += blocks[i] > 0 && !(pages[i].flags & PAGE_RESIDENT);
        wrong += (pages[i].flags & PAGE_RESIDENT) && (pages[i].flags & PAGE_RETURNED);
        wrong += is_empty && (pages[i].flags & PAGE_RESIDENT); /* trimmed before */
        returned += (pages[i].flags & PAGE_RETURNED) != 0;
        resident += (pages[i].flags & PAGE_RESIDENT) != 0;
    }
    CHECK(lost == 0 && wrong == 0);
    CHECK(returned > (in_os_page <= 4 ? 500 : 100)); /* fewer large pages are empty */
    CHECK(resident * 4096ul ==
          header->statistics.resident.total - header->statistics.resident.metadata);
    free(taken_bytes);
    free(blocks);
}

static void exact(void *unused)
{
    static const size_t sizes[] = {16, 48, 64, 400, 512};
    uint64_t state = 7;
    survivors[BLOCKS - 1] = first;
    survivor_size[BLOCKS - 1] = 112;
    for (int i = 0; i < BLOCKS - 1; i++) {
        survivor_size[i] = sizes[random_below(&state, 5)];
        survivors[i] = obj.malloc(survivor_size[i]);
    }
    for (int i = 0; i < BLOCKS - 1; i++) /* one here and there survives */
        if (i % 1000 != 77 && random_below(&state, 200)) {
            obj.free(survivors[i]);
            survivors[i] = NULL;
        }
    obmalloc_trim(0);
    read_stats();
    if (total_of_classes("blocks_in_magazines"))
        CHECK(!"nothing is at hand");
    char path[] = "/tmp/obmalloc-live-XXXXXX";
    close(mkstemp(path));
    size_t size;
    CHECK(obmalloc_snapshot(path) == 0);
    char *bytes = read_file(path, &size);
    compare(bytes, size);
    free(bytes);
    CHECK(obmalloc_snapshot_with(path, 0) == 0);
    CHECK(obmalloc_snapshot_with(path, OBMALLOC_SNAPSHOT_TYPES) == 0);
    unlink(path);
    CHECK(obmalloc_snapshot("/no such folder/file") == ENOENT);
    CHECK(obmalloc_snapshot_with(path, 2) == EINVAL);
    CHECK(obmalloc_snapshot_with(NULL, 0) == EFAULT);
    CHECK(obmalloc_snapshot("/") == EISDIR);
    CHECK(obmalloc_snapshot(NULL) == EFAULT);
    if (access("/dev/full", W_OK) == 0)
        CHECK(obmalloc_snapshot("/dev/full") == ENOSPC);
    /* The same through the page. */
    usleep(300 * 1000);
    tick();
    obmalloc_trim(0);
    struct stats_page *page = page_open(getpid());
    CHECK(page && page_request(page, 1) && page->snapshot_error == 0);
    char name[PATH_MAX];
    CHECK(page_path(getpid(), name));
    int fd = open(name, O_RDONLY);
    size = page->snapshot_bytes;
    bytes = malloc(size);
    CHECK(pread(fd, bytes, size, STATS_PAGE_BYTES) == (ssize_t)size);
    compare(bytes, size);
    free(bytes);
    CHECK(page_request(page, 2) && page->snapshot_bytes == 0);
    char byte = 1;
    CHECK(pread(fd, &byte, 1, STATS_PAGE_BYTES) == 1 && byte == 0); /* its memory is gone */
    for (int i = 0; i < BLOCKS - 1; i++)
        obj.free(survivors[i]);
}

/* ---- arenas of a program's own ---- */

enum { LANDS = 64 };
static struct { char *start; size_t size; } lands[LANDS];
static int lands_given;

static void *land(void *ctx, size_t size)
{
    char *p = mmap(NULL, size + 65536 + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
    if (p == MAP_FAILED || lands_given == LANDS)
        return NULL;
    p += 65536 - (uintptr_t)p % 65536 + 4096; /* not where a pool begins */
    lands[lands_given].start = p;
    lands[lands_given++].size = size;
    return p;
}

static void land_back(void *ctx, void *p, size_t size)
{
    munmap(p, size); /* what lies beside it stays */
}

static void programs(void *unused)
{
    PyObjectArenaAllocator table = {NULL, land, land_back};
    PyObject_SetArenaAllocator(&table);
    enum { MANY = 100000 };
    static char *p[MANY];
    for (int i = 0; i < MANY; i++)
        memset(p[i] = obj.malloc(480), 1, 480);
    char path[] = "/tmp/obmalloc-live-XXXXXX";
    close(mkstemp(path));
    size_t size, marked = 0, taken = 0;
    CHECK(obmalloc_snapshot(path) == 0);
    char *bytes = read_file(path, &size);
    unlink(path);
    const struct map_header *header = (const void *)bytes;
    const struct map_arena *arenas = (const void *)(bytes + header->header_bytes);
    const struct map_pool *pools = (const void *)(arenas + header->arenas);
    CHECK(page_agrees(&header->statistics));
    for (uint64_t i = 0; i < header->arenas; i++) {
        if (!(arenas[i].flags & 1))
            continue;
        int in = 0;
        while (in < lands_given && arenas[i].address - (uintptr_t)lands[in].start >= lands[in].size)
            in++;
        CHECK(in < lands_given && arenas[i].bytes == lands[in].size);
        CHECK(arenas[i].address % 65536 == 0 && arenas[i].pools == lands[in].size / 65536 - 1);
        for (uint32_t j = 0; j < arenas[i].pools; j++)
            if (pools[arenas[i].first_pool + j].block_bytes == 480)
                taken += pools[arenas[i].first_pool + j].taken;
        marked++;
    }
    CHECK(lands_given >= 4 && marked == (size_t)lands_given);
    CHECK(taken > MANY / 2); /* the rest lies in what was there before */
    CHECK(header->statistics.resident.total > MANY * 480ul);
    free(bytes);
    for (int i = 0; i < MANY; i++)
        obj.free(p[i]);
}

/* Opens the page, which is sealed and not inherited by programs. */
static void begin(void)
{
    char path[PATH_MAX];
    first = obj.malloc(100);
    mine = page_open(getpid());
    CHECK(mine != NULL && page_path(getpid(), path));
    if (!mine)
        exit(exit_status());
    CHECK(fcntl(atoi(strrchr(path, '/') + 1), F_GETFD) == FD_CLOEXEC);
    CHECK(atoi(strrchr(path, '/') + 1) > 200);
    CHECK(truncate(path, 0) != 0);
}

static void in_a_child(void (*body)(void *))
{
    begin();
    CHECK(in_child(body, NULL) == 0);
}

static void equal_numbers(void) { begin(); equal(); }
static void exact_snapshot(void) { in_a_child(exact); }
static void watched_from_outside(void) { begin(); watched(); }
static void fork_puts_off(void) { in_a_child(put_off); }
static void pages_of_forks(void) { begin(); forks(); }
static void programs_arenas(void) { in_a_child(programs); }
static void closed_descriptors(void) { in_a_child(closed); }

CASES({"page-has-the-numbers-of-json", equal_numbers, "OBMALLOC_STATS_PAGE=1"},
      {"page-snapshot-is-exact", exact_snapshot, "OBMALLOC_STATS_PAGE=1"},
      {"page-watched-while-threads-allocate", watched_from_outside, "OBMALLOC_STATS_PAGE=1"},
      {"page-snapshot-put-off-by-a-fork", fork_puts_off, "OBMALLOC_STATS_PAGE=1"},
      {"page-of-a-fork", pages_of_forks, "OBMALLOC_STATS_PAGE=1"},
      {"page-with-a-programs-arenas", programs_arenas, "OBMALLOC_STATS_PAGE=1"},
      {"page-when-descriptors-are-closed", closed_descriptors, "OBMALLOC_STATS_PAGE=1"});
