"""docs/evidence.md and docs/platforms.md, and the modules that write them."""

import json
import os
import re
import shutil

import pytest

from support import evidence, platforms

RUN = dict(command="make soak", result="no finding", amount="1 cycle", seconds=61,
           versions="C", section="Threads and forks")


def rows(page):
    with open(page, encoding="utf-8") as stream:
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in stream if line.startswith("|")]


@pytest.fixture
def page(tmp_path):
    return shutil.copy(evidence.PAGE, os.path.join(str(tmp_path), "evidence.md"))


def test_each_row_is_complete():
    for row in rows(evidence.PAGE):
        assert len(row) == len(evidence.COLUMNS) and all(row), row


def test_a_new_row_comes_last_in_its_section_and_the_next_one_replaces_it(page):
    before = rows(page)
    evidence.record(what="a new run", page=page, **RUN)
    evidence.record(what="a new run", page=page, **dict(RUN, result="one | two"))
    added = [row for row in rows(page) if row not in before]
    assert [row[:4] for row in added] == [["a new run", "1 cycle", "one \\| two", "61 s"]]
    assert len(rows(page)) == len(before) + 1


def test_other_rows_stay_as_they_are(page):
    before = rows(page)
    name = before[2][0]
    evidence.record(what=name, page=page, **RUN)
    after = rows(page)
    assert [row for row in after if row[0] != name] == [row for row in before if row[0] != name]
    assert [row[2] for row in after if row[0] == name] == ["no finding"]


@pytest.mark.parametrize("text", ["/home/me/x", "see https://x", "example.org", "~/x"])
def test_paths_and_hosts_are_refused(page, text):
    with pytest.raises(ValueError):
        evidence.record(what="x", page=page, **dict(RUN, result=text))


def test_the_table_of_platforms_is_that_of_the_data():
    assert platforms.page() == platforms.PAGE.read_text()


def test_a_platform_of_a_run_is_kept_once(tmp_path):
    data = tmp_path / "platforms.json"
    data.write_text("[]")
    first = dict(python="3.14.1", build="static", libc="musl 1.2.5")
    served = platforms.Platform(**first)
    newer = platforms.Platform(**dict(first, python="3.14.2"))
    aside = platforms.Platform(**dict(first, build="free-threaded", served=False))
    for one in served, newer, aside:
        platforms.record("a run", "abc", "2026-01-02", [one.__dict__], data)
    entries = json.loads(data.read_text())
    assert [one["python"] for one in entries] == ["3.14.2", "3.14.1"]
    assert list(platforms.table(entries))[2:] == [
        "| 3.14 | x86_64 | musl | yes | a run (3.14.2 static, musl 1.2.5) |\n",
        "| 3.14 free-threaded | x86_64 | musl | no: stands aside "
        "| a run (3.14.1 free-threaded, musl 1.2.5) |\n"]
