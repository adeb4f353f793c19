"""The benchmarks give the same answers with the library and without; their tables and README
are up to date. Nothing is timed here."""

import sys
from pathlib import Path

import pytest

from support import child

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
sys.path.append(str(BENCH))

from definitions import BENCHMARKS  # noqa: E402

SHORT = ("scaling", "c_level", "heaps", "footprint")
# The others install packages, or have no short form.
LONG = ("instructions", "memory", "lock_time", "huge_pages", "c_level_instructions")


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.slow)
                                            for name in LONG)])
def test_answers(name, library):
    done = child.run([sys.executable, BENCH / "run.py", "--quick", name, "--library", library],
                     timeout=900, status=0)
    assert "ok: " in done.out, done.report
    if "0 results" in done.out:
        pytest.skip(done.out.strip().splitlines()[-2])


def test_tables_are_those_of_the_results():
    child.run([sys.executable, BENCH / "tables.py", "--check"], status=0)


def test_readme_lists_every_benchmark():
    text = " ".join((BENCH / "README.md").read_text().replace("`", "").split())
    for benchmark in BENCHMARKS:
        answers = " ".join(benchmark.answers.replace("`", "").split())
        row = "| %s | %s | %s |" % (benchmark.name, answers, benchmark.takes)
        assert row in text, benchmark.name
