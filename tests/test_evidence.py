"""docs/evidence.md and the module that writes its rows."""

import os
import re
import shutil

import pytest

from support import evidence

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
