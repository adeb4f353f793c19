"""Keep the runs of one side on disk, one file a module, to be used again.

The runs with CPython's own obmalloc.o do not depend on this library, so they need
not be made again when the library changes.
"""

import dataclasses
import hashlib
import json
import os

from runner import Run

LONGEST_LOG = 200_000


def digest(path):
    """A short name for the contents of an executable; "" when there is none."""
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()[:16]
    except OSError:
        return ""


class Store:
    """The runs of one interpreter: FOLDER/MODULE.json."""

    def __init__(self, folder, executable, archive=""):
        self.folder = folder
        self.build = digest(executable)
        self.archive = digest(archive)

    def path(self, module):
        return os.path.join(self.folder, module + ".json")

    def modules(self):
        """The modules that have runs here."""
        if not os.path.isdir(self.folder):
            return []
        return sorted(name[:-len(".json")] for name in os.listdir(self.folder)
                      if name.endswith(".json"))

    def read(self, module):
        """The file as it is; None when there is none."""
        try:
            with open(self.path(module), encoding="utf-8") as stream:
                return json.load(stream)
        except FileNotFoundError:
            return None

    def archives(self):
        """The digests of the libraries that the stored runs were made with."""
        return {self.read(module).get("archive", "") for module in self.modules()}

    def load(self, module, same_build=False):
        """The stored runs; with `same_build` only those of today's executable."""
        stored = self.read(module)
        if stored is None or (same_build and stored["build"] != self.build):
            return []
        runs = [Run(**fields) for fields in stored["runs"]]
        for run in runs:
            run.outcomes = {name: tuple(all_) for name, all_ in run.outcomes.items()}
        return runs

    def save(self, module, runs):
        os.makedirs(self.folder, exist_ok=True)
        runs = [dataclasses.asdict(run) for run in runs]
        for run in runs:
            run["log"] = run["log"][-LONGEST_LOG:]
        path = self.path(module)
        with open(path + ".new", "w", encoding="utf-8") as stream:
            json.dump({"build": self.build, "archive": self.archive, "runs": runs},
                      stream)
        os.replace(path + ".new", path)
