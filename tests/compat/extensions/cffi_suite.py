"""cffi: memory of C made, cast, called back and freed from Python."""

import gc
import threading

from cffi import FFI

ffi = FFI()
ffi.cdef("""
    typedef struct node { int value; struct node *next; char name[20]; } node_t;
    void *malloc(size_t); void free(void *); size_t strlen(const char *);
    void qsort(void *, size_t, size_t, int (*)(const void *, const void *));
    char *strdup(const char *);
""")
libc = ffi.dlopen(None)


def test_every_size():
    for size in list(range(0, 1100)) + [4096, 70000, 1 << 20]:
        block = ffi.new("char[]", size)
        assert len(block) == size and bytes(ffi.buffer(block)) == b"\0" * size


def test_structures_keep_their_memory():
    nodes, first = [], ffi.NULL
    for value in range(5000):
        node = ffi.new("node_t *", {"value": value, "next": first, "name": b"n%d" % value})
        nodes.append(node)
        first = node
    gc.collect()
    total, count = 0, 0
    while first != ffi.NULL:
        total, count, first = total + first.value, count + 1, first.next
    assert (total, count) == (sum(range(5000)), 5000)


def test_callbacks():
    @ffi.callback("int(const void *, const void *)")
    def order(left, right):
        return ffi.cast("int *", left)[0] - ffi.cast("int *", right)[0]

    numbers = ffi.new("int[]", [value * 7919 % 3001 for value in range(3000)])
    libc.qsort(numbers, 3000, ffi.sizeof("int"), order)
    assert list(numbers) == sorted(numbers)
    several = [ffi.callback("int(int)", lambda n, add=add: n + add) for add in range(2000)]
    assert [one(1) for one in several] == list(range(1, 2001))


def test_memory_of_the_c_library():
    for size in range(1, 2000, 37):
        text = b"x" * size
        copied = ffi.gc(libc.strdup(text), libc.free, size)
        assert libc.strlen(copied) == size and ffi.string(copied) == text
    gc.collect()


def test_handles_and_weak_owners():
    freed = []
    for number in range(500):
        handle = ffi.new_handle([number] * number)
        assert len(ffi.from_handle(handle)) == number
        ffi.gc(ffi.new("int *", number), lambda pointer: freed.append(pointer[0]))
    del handle
    gc.collect()
    assert sorted(freed) == list(range(500))


def test_threads():
    sums = []

    def work():
        for count in range(1, 400):
            sums.append(sum(ffi.new("int[]", list(range(count)))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sums) == 4 * sum(sum(range(count)) for count in range(1, 400))
