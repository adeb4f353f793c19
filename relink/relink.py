"""Link a CPython again, with libobmalloc.a in the place of its own obmalloc.o.

    python3 relink.py PYTHON [--stock] [--archive FILE] [--out FOLDER] [--print]
    python3 relink.py PYTHON --needed

PYTHON is a path, a version that pyenv knows (3.11 or 3.11.7), or a command.  It must
have been installed with its static archive libpythonX.Y.a and python.o, as pyenv
does.  The result is a prefix FOLDER/VERSION with bin/pythonX.Y; its library is a
link to the original's.  With --stock CPython's own obmalloc.o is linked at the same
place of the same command line, as FOLDER/VERSION-stock: the fair baseline.

--print shows the command and links nothing; --needed prints the names that the
linker misses when obmalloc.o is left out and nothing is put in its place.
"""

import argparse
import os
import re
import shlex
import sys

import objects
import verify
from ask import Refusal, ask, check_usable

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Where cargo builds.
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(TREE, "target"),
                       os.environ.get("CARGO_BUILD_TARGET", ""), "release")
UNDEFINED = re.compile(r"undefined (?:reference to|symbol:?) [`']?([\w.$]+)")
NOT_PIC = re.compile(r"recompile with -fPI[CE]")
# Options of the original build that only matter to a compiler.
COMPILING = re.compile(r"-(flto|fprofile|fuse-linker-plugin|fwrapv|g|O)")


def words(host, *names):
    """The words of some of the interpreter's link variables."""
    return [word for name in names for word in shlex.split(host.text(name))]


def flags_of(host):
    """The options for the linker: the original's, as far as they are for linking."""
    for name in ("PY_CORE_LDFLAGS", "PY_LDFLAGS", "LDFLAGS"):
        if host.text(name):
            return [word for word in words(host, name) if not COMPILING.match(word)]
    return []


def rpath_of(host):
    """Extension modules of 2.7 to 3.7 ask for the shared libpython by its name."""
    if host.config.get("Py_ENABLE_SHARED") and host.text("LIBDIR"):
        return ["-Wl,-rpath," + host.text("LIBDIR")]
    return []


def allocator_words(options, single):
    """The linker words in place of obmalloc.o: all members with the archive's names, or itself."""
    if options.needed:
        return []
    if options.stock:
        return [single]
    if not os.path.isfile(options.archive):
        raise Refusal("no archive at %s: build it with `make`" % options.archive)
    members = objects.members_with_our_names(options.archive)
    if not members:
        raise Refusal("%s defines none of CPython's names: build it with `make`"
                      % options.archive)
    return ["-Wl,-u,%s" % name for name in sorted(members.values())] + [options.archive]


def link_command(host, allocator, rest, output):
    """The command; CPython's Makefile has the same order of the libraries."""
    compiler = words(host, "LINKCC") or words(host, "CC") or ["cc"]
    return (compiler + flags_of(host) + ["-o", output, host.main_object] + allocator
            + ["-Wl,--whole-archive", rest, "-Wl,--no-whole-archive"]
            + words(host, "LIBS", "MODLIBS", "SYSLIBS", "LIBM")
            + ["-lpthread", "-ldl", "-lutil"] + rpath_of(host)
            + (words(host, "LINKFORSHARED") or ["-Wl,-export-dynamic"]))


def link(command):
    """Run the command; returns the undefined names, raises for any other trouble."""
    result = objects.run(command)
    if result.returncode != 0 and NOT_PIC.search(result.stderr):
        # A static build's archive has code that cannot be moved.
        result = objects.run(command + ["-no-pie"])
    if result.returncode == 0:
        return []
    missing = sorted(set(UNDEFINED.findall(result.stderr)))
    if not missing:
        raise Refusal("the linker failed:\n%s\nThe command was:\n%s"
                      % (result.stderr.strip()[-2000:], shlex.join(command)))
    return missing


def make_link(target, path):
    """A symbolic link at `path`, whatever was there before."""
    if os.path.lexists(path):
        if os.path.islink(path) and os.readlink(path) == target:
            return
        os.remove(path)
    os.symlink(target, path)


def make_prefix(host, prefix):
    """The folders and links that make an executable in bin/ find its library."""
    os.makedirs(os.path.join(prefix, "bin"), exist_ok=True)
    parts = {os.path.relpath(path, host.prefix): path for path in host.stdlib}
    libraries = os.path.dirname(host.stdlib[0])
    for name in os.listdir(libraries):
        if name == "pkgconfig" or name.startswith("libpython"):
            path = os.path.join(libraries, name)
            parts[os.path.relpath(path, host.prefix)] = path
    for name in ("include", "share"):
        path = os.path.join(host.prefix, name)
        if os.path.isdir(path):
            parts[name] = path
    for relative, path in parts.items():
        if relative.startswith(".."):
            raise Refusal("%s is outside of the prefix %s: such a layout is not known "
                          "here" % (path, host.prefix))
        os.makedirs(os.path.dirname(os.path.join(prefix, relative)), exist_ok=True)
        make_link(path, os.path.join(prefix, relative))
    for name in ("python", "python" + host.short.split(".")[0]):
        make_link("python" + host.short, os.path.join(prefix, "bin", name))


def up_to_date(binary, record, command, inputs):
    """Whether the binary was made by this command from inputs that are older."""
    if not (os.path.exists(binary) and os.path.exists(record)):
        return False
    with open(record, encoding="utf-8") as stream:
        if stream.read() != shlex.join(command):
            return False
    made = os.path.getmtime(binary)
    return all(os.path.getmtime(path) < made for path in inputs)


def relink(host, options):
    """Link, build the prefix, verify; returns the new interpreter's path."""
    name = host.version + ("-stock" if options.stock else "")
    prefix = os.path.join(options.out, name)
    build = os.path.join(options.out, "build", host.version)
    rest, single = objects.split_archive(host.archive, build)
    allocator = allocator_words(options, single)
    binary = os.path.join(prefix, "bin", "python" + host.short)
    new = os.path.join(build, "python-%d" % os.getpid())
    if options.needed:
        print("\n".join(link(link_command(host, allocator, rest, new))))
        return ""
    command = link_command(host, allocator, rest, binary)
    if options.print:
        print(shlex.join(command))
        return ""
    record = os.path.join(build, "command-stock" if options.stock else "command")
    inputs = [word for word in command if word.endswith((".a", ".o"))]
    make_prefix(host, prefix)
    if not up_to_date(binary, record, command, inputs):
        missing = link(link_command(host, allocator, rest, new))
        if missing:
            raise Refusal("CPython %s needs names that %s does not define: %s"
                          % (host.version, os.path.basename(options.archive),
                             " ".join(missing)))
        os.replace(new, binary)
        with open(record, "w", encoding="utf-8") as stream:
            stream.write(shlex.join(command))
    complaints = verify.complaints(host, binary, prefix, single, options.stock)
    if complaints:
        raise Refusal("%s was linked, and is not right:\n  it %s"
                      % (binary, "\n  it ".join(complaints)))
    return binary


def shown(path):
    """A path as short as it can be said here."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("python", help="path, version that pyenv has, or command")
    parser.add_argument("--stock", action="store_true",
                        help="link CPython's own obmalloc.o: the baseline")
    parser.add_argument("--archive", metavar="FILE",
                        default=os.path.join(RELEASE, "libobmalloc.a"))
    parser.add_argument("--out", metavar="FOLDER",
                        default=os.path.join(TREE, "target/relink"))
    parser.add_argument("--print", action="store_true",
                        help="show the link command, link nothing")
    parser.add_argument("--needed", action="store_true",
                        help="print the names that obmalloc.o's place must define")
    options = parser.parse_args()
    options.archive = os.path.abspath(options.archive)
    options.out = os.path.abspath(options.out)
    return options


def main():
    options = parse_arguments()
    try:
        host = ask(options.python)
        check_usable(host)
        binary = relink(host, options)
    except Refusal as refusal:
        sys.exit("relink.py: %s" % refusal)
    except OSError as problem:
        sys.exit("relink.py: %s (gcc and binutils are needed)" % problem)
    if binary:
        line = "" if options.stock else verify.active_line(binary)
        print("%s: CPython %s, %s" % (shown(binary), host.version,
                                      line or "its own obmalloc.o"))


if __name__ == "__main__":
    main()
