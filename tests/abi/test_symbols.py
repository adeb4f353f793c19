"""The symbols of the built libraries, against the lists beside this file.

The imports of the shared library bound what it can call: the C library, no cancellation
point, and nothing that could call back into an allocator on the hit path. Its exports are
its ABI. The archive has in addition the names that a CPython build needs of its obmalloc.o.
People read the lists, so a change is a decision.
"""
import re
import subprocess

import pytest

from abi import abi

# Cancellation points that the library imports, and why no thread is cancelled in them.
CANCELLABLE = {
    "dlopen": "only with RTLD_NOLOAD, and while an Uncancelled lives (src/os/cancel.rs)",
    "fwrite": "to a FILE of the host's (_PyObject_DebugMallocStats), while an Uncancelled lives",
}
# Hidden names that members of the archive share.
INTERNAL = ("thread_word", "obmalloc_raw_strdup")
NEEDED = [*sorted(path.relative_to(abi.HERE) for path in abi.HERE.glob("needed/*.txt")),
          "extensions.txt", "debug.txt"]


@pytest.fixture(scope="module")
def imports(library):
    return set(abi.nm("-D", "--undefined-only", library))


@pytest.fixture(scope="module")
def dynamic(library):
    return subprocess.run(["readelf", "-dlW", library], check=True, capture_output=True,
                          text=True).stdout


@pytest.fixture(scope="module")
def in_archive(archive):
    """{name: letter} of the archive's external names"""
    return abi.nm("--defined-only", "--extern-only", archive)


@pytest.fixture(scope="module")
def public(in_archive):
    return {name: letter for name, letter in in_archive.items()
            if re.match(r"_?Py|obmalloc_", name) and not name.endswith(INTERNAL)}


def test_exports(library):
    assert set(abi.nm("-D", "--defined-only", library)) == set(abi.listed("exports.txt"))


def test_imports(imports):
    assert imports == set(abi.listed("imports.txt"))


def test_cancellation_points(imports):
    """malloc may be none, so the library calls none: POSIX lists them. `syscall` is none."""
    assert imports & set(abi.listed("cancellation_points.txt")) == set(CANCELLABLE)


def test_the_c_library_is_the_only_dependency(dynamic):
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic) == ["libc.so.6"]


@pytest.mark.parametrize("entry", [r"soname: \[libobmalloc.so.0\]", r"Flags:.*NODELETE",
                                   r"FLAGS\).*STATIC_TLS"])
def test_dynamic_section(dynamic, entry):
    assert re.search(entry, dynamic)


def test_thread_local_storage_is_one_word(dynamic):
    size = re.search(r"^\s*TLS(?:\s+\S+){4}\s+(\S+)", dynamic, re.M)
    assert size and int(size.group(1), 16) == 8


def test_archive_has_the_listed_names(public):
    listed = {name for path in ["exports.txt", "archive.txt", *NEEDED] for name in abi.listed(path)}
    assert set(public) == listed - abi.LOADERS


def test_archive_keeps_the_loaders_names_local(in_archive):
    assert not abi.LOADERS & set(in_archive)


def test_archive_is_weak(public):
    """2.7 defines PyMem_* itself: a definition of the host wins."""
    strong = [name for name, letter in public.items()
              if name.startswith(("Py", "_Py")) and letter not in "WV"]
    assert not strong


@pytest.mark.parametrize("path", NEEDED, ids=lambda path: str(path)[:-4])
def test_names_that_a_build_needs(in_archive, path):
    """needed/VERSION.txt: names that libpython's own members need; extensions.txt: extension
    modules and embedding programs; debug.txt: what debug builds add. All are there, and weak."""
    assert {name: in_archive.get(name, "missing") for name in abi.listed(path)
            if in_archive.get(name, "missing") not in "WV"} == {}
