"""Forwards to tests/support/evidence.py, for callers that still keep records here."""

import importlib.util
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_spec = importlib.util.spec_from_file_location(
    "evidence", os.path.join(ROOT, "tests", "support", "evidence.py"))
_evidence = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_evidence)
NAMES = {"forks": "forks under load",
         "soak": "soak: threads, forks, execs, sub-interpreters and refused requests at once"}
SECTIONS = {"compat": "Packages", "env": "Environments"}


def keep(name, command, amount, seconds, versions, result, what=None):
    section = SECTIONS.get(name.split("-")[0], "Threads and forks")
    _evidence.record(what=NAMES.get(name, name.split("-", 1)[-1]), command=command,
                     result=result, amount=amount, seconds=seconds, versions=versions,
                     section=section)
