/* ways: so a pre
 *
 * A block freed twice, or an address within a block freed: the library writes one line on stderr
 * that begins with `obmalloc: `, and aborts, at the latest when the blocks are flushed from the
 * thread's magazine and returned by the depot of the class to their pools. So each child makes the
 * mistake and then frees some thousand good blocks of that class. */
#include "harness.h"

enum { BLOCKS = 5000 };

struct mistake {
    const char *name;
    size_t n, offset;   /* frees (char *)block + offset */
    int times;          /* ... that often */
    void (*make)(const struct mistake *m);
};

static void *blocks[BLOCKS];

static void free_wrongly(const struct mistake *m)
{
    void *wrong = (char *)blocks[BLOCKS / 2] + m->offset;
    for (int i = 0; i < m->times; i++)
        obj.free(wrong);
}

static void *in_thread(void *m)
{
    free_wrongly(m);
    return NULL; /* its magazines are flushed now */
}

static void at_once(const struct mistake *m)
{
    free_wrongly(m);
    for (int i = 0; i < BLOCKS; i++)
        if (i != BLOCKS / 2)
            obj.free(blocks[i]);
}

/* One free now, the second long after the block was returned to its pool. */
static void long_after(const struct mistake *m)
{
    at_once(m);
    for (int i = 0; i < BLOCKS; i++)
        obj.free(blocks[i]); /* the first of these is wrong already */
}

static void at_thread_end(const struct mistake *m)
{
    pthread_t thread;
    pthread_create(&thread, NULL, in_thread, (void *)m);
    pthread_join(thread, NULL);
}

/* Each of two threads frees once: neither sees it in its own magazine. */
static void from_two_threads(const struct mistake *m)
{
    at_thread_end(m);
    at_thread_end(m);
}

static void child(void *argument)
{
    const struct mistake *m = argument;
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = obj.malloc(m->n);
    m->make(m);
    fprintf(stderr, "survived\n");
}

static void aborts(void)
{
    static const struct mistake mistakes[] = {
        {"small block, twice", 48, 0, 2, at_once},
        {"smallest block, twice", 1, 0, 2, at_once},
        {"medium block, twice", 1000, 0, 2, at_once},
        {"block of the last class, twice", 32768, 0, 2, at_once},
        {"small block, three times", 200, 0, 3, at_once},
        {"small block, again long after", 48, 0, 1, long_after},
        {"medium block, again long after", 3000, 0, 1, long_after},
        {"small block, twice in a thread that ends", 48, 0, 2, at_thread_end},
        {"medium block, twice in a thread that ends", 9000, 0, 2, at_thread_end},
        {"small block, by two threads", 48, 0, 1, from_two_threads},
        {"within a small block", 64, 16, 1, at_once},
        {"within a small block, odd address", 64, 1, 1, at_once},
        {"within a block, its last byte", 512, 511, 1, at_once},
        {"within a medium block", 1000, 512, 1, at_once},
        {"within a block of the last class", 32768, 4096, 1, at_once},
        {"within a small block, in a thread that ends", 64, 32, 1, at_thread_end},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++)
        STEP(mistakes[i].name) {
            char said[2000];
            int status = output_in_child(child, (void *)&mistakes[i], said, sizeof said);
            CHECK(ended_in_one_line(status, said));
        }
}

CASES({"abort", aborts, .settings = "OBMALLOC_POOL_MAX=32768", .reads_stderr = true});
