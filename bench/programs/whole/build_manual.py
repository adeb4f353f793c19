"""Builds HTML from a manual of some hundred KiB of reStructuredText, by docutils.

    bench/programs/whole/build_manual.py [SHARE]

The manual consists of the doc strings of some modules of the standard library: a section for
each module, with a table of its definitions and a section for each definition. The answer is
the length of the HTML and its checksum.
"""

import ast
import os
import re
import sys
import zlib

from docutils.core import publish_string

SHARE = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
MODULES = ("argparse", "difflib", "inspect", "mailbox", "optparse", "smtplib", "subprocess",
           "tarfile", "turtle", "typing")
SETTINGS = {"report_level": 3, "halt_level": 3}      # stops at errors, hides warnings
TABLE = """\
.. list-table::
   :header-rows: 1

   * - name
     - line
%s
"""


def title(text, line):
    return [text, line * len(text), ""]


def paragraphs(text):
    """A doc string as paragraphs of plain words, the second word in bold."""
    for paragraph in re.split(r"\n\s*\n", text):
        words = [re.sub(r"([^A-Za-z0-9.,])", r"\\\1", word) for word in paragraph.split()]
        if len(words) > 1 and words[1].isalnum():
            words[1] = "**%s**" % words[1]
        yield from (" ".join(words), "")


def chapter(module):
    path = os.path.join(os.path.dirname(os.__file__), module + ".py")
    with open(path, encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    found = [(node.name, node.lineno, ast.get_docstring(node)) for node in ast.walk(tree)
             if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    found = [one for one in found if one[2]]
    yield from title("The module " + module, "=")
    yield from paragraphs(ast.get_docstring(tree) or "Nothing is said.")
    yield TABLE % "\n".join("   * - ``%s``\n     - %d" % (name, line) for name, line, _ in found)
    for name, line, text in found:
        yield from title("``%s``" % name, "-")
        yield from (":module: *%s*" % module, ":line: %d" % line, "")
        yield from paragraphs(text)


modules = MODULES[:max(1, round(len(MODULES) * SHARE))]
source = "\n".join(line for module in modules for line in chapter(module))
page = publish_string(source, writer_name="html5", settings_overrides=SETTINGS)
print("%d bytes of source, %d of HTML, checksum %08x" % (len(source), len(page), zlib.crc32(page)))
