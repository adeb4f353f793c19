/* No Python; with -shared, a library that is preloaded beside ours. */
int main(void)
{
    return 0;
}
