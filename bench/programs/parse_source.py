"""Syntax trees: one file of the standard library, parsed, walked and dropped."""

import ast
import os

path = os.path.join(os.path.dirname(os.__file__), "textwrap.py")
with open(path, encoding="utf-8") as stream:
    text = stream.read()
count = 0
for _ in range(4):
    tree = ast.parse(text)
    count += sum(1 for _ in ast.walk(tree))
    tree = None
print(count)
