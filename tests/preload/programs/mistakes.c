/* An extension module of mistakes: each function makes one, with a block of its own.
 *
 * Their order and values do no harm if the block is not guarded, so that a caller can repeat a
 * mistake until a block is guarded. Only the double free and the free of an inner address end the
 * process at once. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pythread.h>

static volatile unsigned char sink;

/* Not static, and not inlined: reports show its name. */
__attribute__((noinline)) volatile unsigned char *mistakes_allocate(Py_ssize_t n)
{
    volatile unsigned char *p = PyObject_Malloc((size_t)n);
    __asm__ volatile("" ::: "memory"); /* no tail call */
    return p;
}

__attribute__((noinline)) void mistakes_free(volatile unsigned char *p)
{
    PyObject_Free((void *)p);
    __asm__ volatile("" ::: "memory");
}

/* Writes the value that the byte has. */
__attribute__((noinline)) void mistakes_access(volatile unsigned char *p, Py_ssize_t offset, int write)
{
    sink = p[offset];
    if (write)
        p[offset] = sink;
    __asm__ volatile("" ::: "memory");
}

/* Writes first, into the guard page of a guarded block. */
__attribute__((noinline)) void mistakes_write(volatile unsigned char *p, Py_ssize_t offset, int value)
{
    p[offset] = (unsigned char)value;
    __asm__ volatile("" ::: "memory");
}

/* A function of the module: its arguments are n, or n and offset; `p` is a block of n
 * bytes. */
#define MISTAKE(name, arguments, ...)                            \
    static PyObject *name(PyObject *self, PyObject *args)        \
    {                                                            \
        Py_ssize_t n, offset = 0;                                \
        (void)self;                                              \
        if (!PyArg_ParseTuple(args, arguments, &n, &offset))     \
            return NULL;                                         \
        volatile unsigned char *p = mistakes_allocate(n);        \
        __VA_ARGS__                                              \
        Py_RETURN_NONE;                                          \
    }

MISTAKE(read_freed, "nn", mistakes_free(p); mistakes_access(p, offset, 0);)

MISTAKE(write_freed, "nn", mistakes_free(p); mistakes_write(p, offset, 0);)

/* At p[offset]; other blocks are freed correctly between. */
MISTAKE(read_at, "nn", mistakes_access(p, offset, 0); mistakes_free(p);)

MISTAKE(write_at, "nn", mistakes_write(p, offset, 1); mistakes_free(p);)

/* With the GIL released. */
MISTAKE(read_freed_without_gil, "nn",
        mistakes_free(p);
        Py_BEGIN_ALLOW_THREADS
        mistakes_access(p, offset, 0);
        Py_END_ALLOW_THREADS)

MISTAKE(free_twice, "n", mistakes_free(p); mistakes_free(p);)

MISTAKE(free_at, "nn", mistakes_free(p + offset);)

MISTAKE(resize_freed, "n",
        mistakes_free(p);
        mistakes_free(PyObject_Realloc((void *)p, (size_t)n * 2));)

/* Drops a reference that it does not own: the object is freed while it is in use. */
static PyObject *drop(PyObject *self, PyObject *object)
{
    (void)self;
    Py_DECREF(object);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"read_freed", read_freed, METH_VARARGS, NULL},
    {"write_freed", write_freed, METH_VARARGS, NULL},
    {"read_at", read_at, METH_VARARGS, NULL},
    {"write_at", write_at, METH_VARARGS, NULL},
    {"read_freed_without_gil", read_freed_without_gil, METH_VARARGS, NULL},
    {"free_twice", free_twice, METH_VARARGS, NULL},
    {"free_at", free_at, METH_VARARGS, NULL},
    {"resize_freed", resize_freed, METH_VARARGS, NULL},
    {"drop", drop, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

#if PY_MAJOR_VERSION >= 3
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "mistakes", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_mistakes(void)
{
    return PyModule_Create(&module);
}
#else
PyMODINIT_FUNC initmistakes(void)
{
    Py_InitModule("mistakes", methods);
}
#endif
