"exit" "3"
# (A shell that is taken for a Python ends at the line above.)
# Runs in the interpreter that is looked at, any from 2.7 on, and says a line for each
# thing that it knows, on a descriptor of its own: what else the program writes to stdout,
# and how, is its own affair. "@" is a word that nobody else prints.
import sys
# -c puts the working directory in front: there may be a types.py or a ctypes.py.
if sys.path[:1] == [""]:
    del sys.path[0]
import os

to = 1
try:
    # Who has started the interpreter may have closed it, and have another file there.
    if os.fstat(FD).st_ino == INODE:
        to = FD
except OSError:
    pass

def say(key, value):
    line = b"@ " + key.encode("ascii") + b" "
    if not isinstance(value, bytes):
        value = str(value).encode("ascii", "backslashreplace")
    line += value + b"\n"
    while line:
        line = line[os.write(to, line):]

say("pid", os.getpid())
say("version", sys.version.split()[0])
name = "pypy" if hasattr(sys, "pypy_version_info") else "cpython"
say("implementation", getattr(getattr(sys, "implementation", None), "name", name))
say("free_threaded", int("free-threading" in sys.version or "free-threaded" in sys.version))
say("dev_mode", int(bool(getattr(sys.flags, "dev_mode", False))))

def read(name):
    try:
        with open(name, "rb") as file:
            return file.read()
    except (IOError, OSError):
        return b""                  # no /proc, or a process that nobody may look at

try:
    say("executable", os.readlink(b"/proc/self/exe"))
except OSError:
    pass
lines = read("/proc/self/maps").splitlines()
for file in sorted(set(line.split(None, 5)[5].strip() for line in lines if b"/" in line)):
    say("file", file)
auxv = bytearray(read("/proc/self/auxv"))
for at in range(0, len(auxv) - 15, 16):
    if auxv[at] == 23 and not any(auxv[at + 1:at + 8]):             # AT_SECURE
        say("secure", auxv[at + 8])

# What the library counts, before, with and after 20 000 blocks.
try:
    import ctypes
    process = ctypes.CDLL(None)
    if not auxv:
        process.getauxval.restype = ctypes.c_ulong
        process.getauxval.argtypes = [ctypes.c_ulong]
        say("secure", process.getauxval(23))
    ask = process.obmalloc_stats_json
    ask.restype = ctypes.c_size_t
    ask.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    text = ctypes.create_string_buffer(1 << 17)

    def stats():
        ask(text, len(text))
        return text.value

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
