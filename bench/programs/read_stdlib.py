"""Reads the source of the standard library and builds an index of it.

Files, syntax trees, objects of a class with slots, dicts, sorting, JSON and back; nearly all
objects are dropped on the way. The result depends on the interpreter and its library only.
"""

import ast
import json
import os
import sys
import zlib


class Definition:
    __slots__ = ("kind", "name", "file", "line", "names")

    def __init__(self, kind, name, file, line, names):
        self.kind, self.name, self.file, self.line, self.names = kind, name, file, line, names

    def record(self):
        return {"kind": self.kind, "name": self.name, "at": [self.file, self.line],
                "names": self.names}


def sources(limit):
    folder = os.path.dirname(os.__file__)
    names = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
    for name in names[:limit]:
        with open(os.path.join(folder, name), encoding="utf-8") as stream:
            yield name, stream.read()


def definitions(file, tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = sorted({inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)})
            yield Definition(type(node).__name__, node.name, file, node.lineno, names)


def main():
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 45
    index, users, nodes, files = {}, {}, 0, 0
    for file, text in sources(limit):
        tree = ast.parse(text)
        nodes += sum(1 for _ in ast.walk(tree))
        files += 1
        for one in definitions(file, tree):
            index.setdefault(one.name, []).append(one)
            for name in one.names:
                users.setdefault(name, []).append(one)
    text = json.dumps({name: [one.record() for one in found] for name, found in index.items()},
                      sort_keys=True)
    again = json.dumps(json.loads(text), sort_keys=True)
    assert again == text
    most = sorted(users, key=lambda name: (-len(users[name]), name))[:3]
    print("%d files, %d nodes, %d names defined, most used: %s, checksum %08x"
          % (files, nodes, len(index), ", ".join(most), zlib.crc32(text.encode())))


main()
