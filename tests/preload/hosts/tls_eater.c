/* A library whose thread-local storage is of the initial-exec model, as ours is: it
 * takes SIZE bytes of what the C library keeps for libraries that are opened late. */
static __thread volatile char eaten[SIZE] __attribute__((tls_model("initial-exec"), aligned(8)));

int eat(void);
int eat(void)
{
    eaten[SIZE - 1]++;
    return eaten[SIZE - 1];
}
