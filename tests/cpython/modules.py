"""The selections of CPython's test modules. "a|b" means the first that the interpreter has."""

# Preloaded, every interpreter.
USUAL = (
    "test_list", "test_dict", "test_set", "test_tuple", "test_str|test_unicode",
    "test_bytes", "test_gc", "test_thread", "test_threading", "test_weakref",
    "test_generators", "test_json", "test_pickle", "test_capi", "test_tracemalloc",
    "test_sys", "test_cmd_line", "test_subprocess", "test_fork1",
    "test_multiprocessing_fork|test_multiprocessing", "test_embed",
    "test_interpreters|test__xxsubinterpreters",
)

# The short form, chosen by time.
SLICE = (
    "test_list", "test_gc", "test_capi", "test_tracemalloc", "test_sys", "test_dict",
    "test_tuple", "test_str|test_unicode", "test_thread", "test_generators",
    "test_fork1",
)

# Relinked: modules that test the allocator, its hooks and its statistics, that create and
# drop many objects, or that start and end threads, interpreters and processes.
MEMORY = (
    "test_list", "test_dict", "test_set", "test_tuple", "test_str|test_unicode",
    "test_bytes", "test_array", "test_memoryview", "test_descr", "test_class",
    "test_exceptions", "test_repl", "test_generators", "test_coroutines",
    "test_weakref", "test_gc", "test_finalization", "test_inspect", "test_sys",
    "test_cmd_line", "test_tracemalloc", "test_capi", "test_embed", "test_atexit",
    "test_datetime", "test_decimal", "test_json", "test_pickle", "test_marshal",
    "test_struct", "test_ctypes", "test_re", "test_io", "test_zlib", "test_os",
    "test_faulthandler", "test_fork1", "test_thread", "test_threading",
    "test_threading_local", "test_interpreters|test__xxsubinterpreters",
)
