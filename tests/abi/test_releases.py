"""The releases' promises are kept, and abi.py finds a broken one: in copies of the header
and of the exports with one thing changed."""
import pytest

from abi import abi

HEADER = abi.ROOT / "include" / "obmalloc.h"


@pytest.mark.parametrize("release", abi.releases())
def test_release_is_kept(library, release):
    assert abi.losses(release, abi.exported(library), HEADER) == []


@pytest.mark.parametrize("release", abi.releases())
def test_lists_are_understood(release):
    declared = [abi.declared(line) for line in abi.kept(release)]
    assert {kind for kind, _ in declared} == {"constant", "function", "type"}
    assert {name for kind, name in declared if kind == "function"} <= abi.names(release)


@pytest.fixture
def losses(tmp_path):
    def of(old="", new="", without=()):
        text = HEADER.read_text()
        assert old in text
        header = tmp_path / "changed.h"
        header.write_text(text.replace(old, new) if old else text)
        release = abi.releases()[0]
        return abi.losses(release, abi.names(release) - set(without), header)
    return of


@pytest.mark.parametrize("old, new", [
    ("", ""),
    ("obmalloc_trim(size_t keep)", "obmalloc_trim(size_t most)"),
    ("int obmalloc_install(void);", "int obmalloc_install(void);\nint obmalloc_more(int n);"),
], ids=["the same header", "a parameter's name", "a new function"])
def test_compatible_changes(losses, old, new):
    assert losses(old, new) == []


@pytest.mark.parametrize("old, new, loss", [
    ("size_t obmalloc_trim(size_t keep)", "int obmalloc_trim(size_t keep)",
     "the function obmalloc_trim differs"),
    ("void *PyMem_Calloc(size_t nelem, size_t elsize)", "void *PyMem_Calloc(size_t n)",
     "the function PyMem_Calloc differs"),
    ("int obmalloc_install(void);", "", "the function obmalloc_install is not"),
    ("#define OBMALLOC_NO_GIL 8", "#define OBMALLOC_NO_GIL 9",
     "the constant OBMALLOC_NO_GIL differs"),
    ("#define OBMALLOC_NO_GIL 8", "", "the constant OBMALLOC_NO_GIL is not"),
    ("  void (*free)(void *ctx, void *ptr, size_t size);", "",
     "the type PyObjectArenaAllocator differs"),
], ids=["result", "parameters", "no function", "value", "no constant", "type"])
def test_incompatible_changes(losses, old, new, loss):
    [found] = losses(old, new)
    assert found.startswith(loss)


def test_a_lost_export(losses):
    assert losses(without=["PyMem_Free"]) == ["PyMem_Free is not exported"]


def test_since():
    """The oldest release that has a name; None for a name that no release has."""
    assert abi.since({"PyMem_Free", "obmalloc_not_yet"}) == {
        "PyMem_Free": abi.releases()[0], "obmalloc_not_yet": None}
