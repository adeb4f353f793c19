#!/usr/bin/env python3
"""The table of settings in docs/settings.md, made from the one in src/config.rs.

    docs/settings.py            writes what stands between the page's two comments
    docs/settings.py --check    fails if it is not what the source says
"""
import argparse
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..", "src", "config.rs")
PAGE = os.path.join(HERE, "settings.md")
MARKED = re.compile(r"(<!-- settings -->\n)(.*?)(<!-- end of settings -->)", re.S)
# An entry of SETTINGS; each field stands on a line of its own.
ENTRY = re.compile(r'^    Setting \{\n\s+name: "(.*)",\n\s+values: "(.*)",\n\s+meaning: "(.*)",\n',
                   re.M)


def table():
    with open(SOURCE, encoding="utf-8") as stream:
        source = stream.read()
    entries = ENTRY.findall(source)
    if not entries or len(entries) != len(re.findall(r"^    Setting \{$", source, re.M)):
        sys.exit("src/config.rs: a setting is not in the form that docs/settings.py reads")
    lines = ["| variable | values; default | meaning |", "|---|---|---|"]
    lines += ["| `OBMALLOC_%s` | %s | %s |" % entry for entry in entries]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    with open(PAGE, encoding="utf-8") as stream:
        before = stream.read()
    after, count = MARKED.subn(lambda match: match[1] + table() + match[3], before)
    if count != 1:
        sys.exit("docs/settings.md has no place for the table")
    if options.check:
        if after != before:
            sys.exit("docs/settings.md: the table is not that of src/config.rs (run docs/settings.py)")
    else:
        with open(PAGE, "w", encoding="utf-8") as stream:
            stream.write(after)
    print("ok: the table of settings is that of src/config.rs")


if __name__ == "__main__":
    main()
