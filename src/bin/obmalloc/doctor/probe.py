"exit" "3"
# (A shell that is taken for a Python ends at the line above.)
# Runs in the interpreter that is looked at, any from 2.7 on, and says a line for each
# thing that it knows. "@" is a word that nobody else prints.
import os, sys

def say(key, value):
    sys.stdout.write("@ %s %s\n" % (key, value))
    sys.stdout.flush()

say("pid", os.getpid())
say("version", sys.version.split()[0])
name = "pypy" if hasattr(sys, "pypy_version_info") else "cpython"
say("implementation", getattr(getattr(sys, "implementation", None), "name", name))
say("free_threaded", int("free-threading" in sys.version or "free-threaded" in sys.version))
say("dev_mode", int(bool(getattr(sys.flags, "dev_mode", False))))
try:
    say("executable", os.readlink("/proc/self/exe"))
    with open("/proc/self/maps") as maps:
        files = set(line.split(None, 5)[5].strip() for line in maps if "/" in line)
    for file in sorted(files):
        say("file", file)
    with open("/proc/self/auxv", "rb") as auxv:
        auxv = bytearray(auxv.read())
    for at in range(0, len(auxv) - 15, 16):
        if auxv[at] == 23 and not any(auxv[at + 1:at + 8]):         # AT_SECURE
            say("secure", auxv[at + 8])
except (IOError, OSError):
    pass

# What the library counts, before, with and after 20 000 blocks.
try:
    import ctypes
    ask = ctypes.CDLL(None).obmalloc_stats_json
    ask.restype = ctypes.c_size_t
    ask.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    text = ctypes.create_string_buffer(1 << 17)

    def stats():
        ask(text, len(text))
        return text.value.decode("ascii")

    before = stats()
    kept = [object() for n in range(20000)]
    during = stats()
    del kept
    after = stats()
    say("before", before)
    say("during", during)
    say("after", after)
except AttributeError:
    say("ctypes", "no obmalloc_stats_json in this process")
except (ImportError, OSError):
    say("ctypes", "missing")
    # Then the statistics at exit must show that they were there: 24 MiB at least.
    kept = [(n, str(n)) for n in range(200000)]
    kept += [(n, str(n)) for n in range(200000)]
    del kept
say("end", 1)
