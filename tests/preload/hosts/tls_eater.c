/* A library with thread-local storage of the initial-exec model, like libobmalloc: it takes SIZE
 * bytes of the reserve that the C library has for libraries that are opened late. */
static __thread volatile char eaten[SIZE] __attribute__((tls_model("initial-exec"), aligned(8)));

int eat(void);
int eat(void)
{
    eaten[SIZE - 1]++;
    return eaten[SIZE - 1];
}
