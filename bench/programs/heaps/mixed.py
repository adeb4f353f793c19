"""Several kinds of work: syntax trees, JSON, pickles, regular expressions, text.

Each phase builds the input of the next: the syntax trees of some modules of the standard
library become records, which go through JSON and pickle and end as lines of text.
"""

import ast
import json
import os
import pickle
import re
import zlib

from phases import SCALE, phase, report, scaled

FILES = ("_pydecimal.py", "argparse.py", "difflib.py", "inspect.py", "mailbox.py", "pydoc.py",
         "tarfile.py", "turtle.py", "typing.py", "unittest/mock.py")
EXPRESSIONS = 150


def sources():
    folder = os.path.dirname(os.__file__)
    for name in FILES[:scaled(len(FILES))]:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                yield name, stream.read()


def records(name, tree):
    """A dict for each definition, with the names that it uses."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]
            yield {"file": name, "name": node.name, "at": [node.lineno, node.col_offset],
                   "names": names, "doc": ast.get_docstring(node)}


def lines(record):
    words = " ".join(name.replace("_", " ").title() for name in record["names"])
    yield "%s:%d %s: %s" % (record["file"], record["at"][0], record["name"], words)
    for line in (record["doc"] or "").splitlines():
        yield line.strip()


with phase("ast"):
    trees = [(name, ast.parse(text)) for name, text in sources()]
with phase("compile"):
    codes = [compile(tree, name, "exec") for name, tree in trees]
with phase("records"):
    found = [one for name, tree in trees for one in records(name, tree)]
    del trees
again = found
with phase("json"):
    for _ in range(scaled(8)):
        again = json.loads(json.dumps(again))
with phase("pickle"):
    for _ in range(scaled(10)):
        again = pickle.loads(pickle.dumps(again, 4))
with phase("re"):
    matched = 0
    for number in range(scaled(EXPRESSIONS)):
        re.purge()
        words = sorted({one["name"] for one in found[number::EXPRESSIONS]})
        expression = re.compile(r"(?P<word>%s)|([a-z]+\d*)(\s+|$)|[^\w\s]{1,3}?"
                                % "|".join(map(re.escape, words)))
        matched += sum(bool(expression.match(word)) for word in words)
with phase("text"):
    for _ in range(scaled(8)):
        text = "\n".join(line for one in again for line in lines(one))

right = again == found and len(codes) == len({one["file"] for one in found})
report([len(found), matched, zlib.crc32(text.encode())], right and (SCALE < 1 or matched > 1000))
