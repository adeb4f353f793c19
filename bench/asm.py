"""The instructions of one malloc and one free that hit, counted in the built library.

The functions in CPython's tables, malloc plain and packed, are disassembled and followed from
the entry along the path that the compiler lays out for the expected case: conditional jumps
not taken, jumps inside the function followed, up to the first `ret`. The path is printed.
The check fails if it is longer than the limit, takes a lock (a `lock` prefix, or xchg with
memory, which locks without one), calls a function, or leaves its function.

bench/instructions.py counts at run time, and so shows that a hit takes this path.
"""

import re
import shutil
import subprocess
import sys

import hosts

NAMES = ("cpython::install::PLAIN::malloc", "cpython::install::PACKED::malloc",
         "cpython::install::free")
HASH = re.compile(r"::h[0-9a-f]{16}$")
HEADING = re.compile(r"^([0-9a-f]+) <(.*)>:$")
LINE = re.compile(r"^\s+([0-9a-f]+):\s+(.*?)\s*$")
PREFIXES = ("lock", "bnd", "notrack", "rep", "repz", "repnz", "data16", "cs", "ds")


def disassembly(library):
    """{demangled name: [(address, text of the instruction)]} of the functions wanted."""
    command = ["objdump", "-dC", "--no-show-raw-insn", library]
    result = subprocess.run(command, stdout=subprocess.PIPE, universal_newlines=True)
    if result.returncode != 0:
        hosts.stop("objdump cannot read the library")
    functions, current = {}, None
    for line in result.stdout.splitlines():
        heading, instruction = HEADING.match(line), LINE.match(line)
        if heading:
            name = HASH.sub("", heading.group(2))
            wanted = [known for known in NAMES if ("::" + name).endswith("::" + known)]
            current = functions.setdefault(wanted[0], []) if wanted else None
        elif instruction and current is not None:
            current.append((int(instruction.group(1), 16), instruction.group(2)))
    return functions


def parts(text):
    """(prefixes, mnemonic, operands) of an instruction."""
    words, prefixes = text.split(), []
    while words and words[0] in PREFIXES and len(words) > 1:
        prefixes.append(words.pop(0))
    return prefixes, words[0], " ".join(words[1:])


def walk(lines):
    """([(address, text)], complaint or None): from the entry to the first ret."""
    places = {address: index for index, (address, _) in enumerate(lines)}
    path, index, seen = [], 0, set()
    while index is not None and index < len(lines):
        address, text = lines[index]
        if index in seen:
            return path, "loops at %x" % address
        seen.add(index)
        path.append((address, text))
        prefixes, mnemonic, operands = parts(text)
        if mnemonic.startswith("ret"):
            return path, None
        if mnemonic.startswith("call"):
            return path, "calls: %s" % text
        if "lock" in prefixes or (mnemonic.startswith("xchg") and "(" in operands):
            return path, "takes a lock: %s" % text
        if mnemonic.startswith("jmp"):
            target = operands.split()[0]
            index = places.get(int(target, 16)) if re.match(r"^[0-9a-f]+$", target) else None
            if index is None:
                return path, "leaves the function: %s" % text
        elif mnemonic in ("ud2", "int3", "hlt"):
            return path, "ends in %s" % mnemonic
        else:
            index += 1
    return path, "has no ret"


def main():
    parser = hosts.parser(__doc__)
    parser.add_argument("--limit", type=int, default=30,
                        help="most instructions of the two together (%(default)s)")
    options = parser.parse_args()
    if shutil.which("objdump") is None:
        hosts.stop("no objdump on PATH (it comes with binutils)")
    functions = disassembly(hosts.library(options.library))
    counts, complaints = [], []
    for name in NAMES:
        if not functions.get(name):
            hosts.stop("no symbol of the library ends in %s: stripped?" % name)
        path, complaint = walk(functions[name])
        print("%s: %d instructions" % (name, len(path)))
        for address, text in path:
            print("  %8x  %s" % (address, text))
        counts.append(len(path))
        if complaint:
            complaints.append("%s %s" % (name, complaint))
    plain, packed, free = counts
    total = max(plain, packed) + free
    print("malloc %d, packed %d, + free %d = %d, limit %d"
          % (plain, packed, free, total, options.limit))
    if total > options.limit:
        complaints.append("%d instructions are more than %d" % (total, options.limit))
    return hosts.finish(complaints, "no lock, no call, within the limit")


if __name__ == "__main__":
    sys.exit(main())
