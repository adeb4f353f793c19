/* ways: so a pre
 *
 * A thread forks while another thread's fork holds all locks and sleeps in a handler of another
 * library. The second fork goes on without the locks. Its child may do what POSIX allows. No
 * thread of the child could open the locks, so if it allocates it ends at once with a line that
 * gives the reason: it neither hangs nor works on a heap that may be half changed. */
#include "harness.h"

#include <semaphore.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

enum { BLOCKS = 600 };

static pthread_t sleeper;
static atomic_bool armed, sleeps;
static sem_t go_on;

/* Registered before the library's handlers, so it runs when they have all locks. */
static void sleeps_with_the_locks(void)
{
    if (!armed || !pthread_equal(sleeper, pthread_self()))
        return;
    sleeps = true;
    sem_wait(&go_on); /* asleep: it takes no processor time */
}

static void before_everything(void)
{
    pthread_atfork(sleeps_with_the_locks, NULL, NULL);
}

RUNS_FIRST(before_everything);

static void exits(void *argument)
{
}

static void allocates(void *argument)
{
    for (size_t i = 0; i < BLOCKS; i++)
        fill(obj.malloc(40 * (1 + i % 12)), 40, i);
}

static void *forks_and_sleeps(void *argument)
{
    sleeper = pthread_self();
    armed = true;
    CHECK(in_child(allocates, NULL) == 0); /* its own fork holds the locks to the end */
    return argument;
}

static void while_another_fork_sleeps(void)
{
    static const char message[] = "forked in the midst of another thread's allocation";
    char said[4096];
    pthread_t thread;
    int minor = 0; /* of glibc */
#ifdef __GLIBC__
    sscanf(gnu_get_libc_version(), "2.%d", &minor);
#endif
    if (minor < 36)
        skip("this C library has forks wait for each other's handlers");
    alarm(50);
    CHECK(sem_init(&go_on, 0, 0) == 0);
    allocates(NULL);
    CHECK(pthread_create(&thread, NULL, forks_and_sleeps, NULL) == 0);
    while (!sleeps)
        usleep(1000);
    STEP("a child that does not allocate")
    {
        CHECK(output_in_child(exits, NULL, said, sizeof said) == 0 && said[0] == 0);
    }
    STEP("a child that allocates")
    {
        const int status = output_in_child(allocates, NULL, said, sizeof said);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        CHECK(occurrences(said, message) == 1);
    }
    STEP("the parent allocates meanwhile") allocates(NULL);
    sem_post(&go_on);
    CHECK(pthread_join(thread, NULL) == 0);
    STEP("afterwards")
    {
        CHECK(output_in_child(allocates, NULL, said, sizeof said) == 0 && said[0] == 0);
    }
}

CASES({"while-another-fork-sleeps", while_another_fork_sleeps, .reads_stderr = true});
