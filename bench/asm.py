"""The instructions of one malloc and one free that hit, counted in the built library.

The functions in CPython's tables, malloc plain and packed, are disassembled and followed from
the entry along the path that the compiler lays out for the expected case: conditional jumps
not taken, jumps inside the function followed, up to the first `ret`. The path is printed.
The check fails if it is longer than the limit, changes memory atomically (x86-64: a `lock` prefix,
or xchg with memory, which locks without one; aarch64: exclusive loads and stores, and instructions
such as `cas`), waits at a barrier, calls a function, or leaves its function. The limit is that of
the library's machine.

bench/instructions.py counts at run time, and so shows that a hit takes this path.
"""

import platform
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
ATOMIC = re.compile(r"(ld|st)a?l?xr|(ld|st)l?a?xp|cas|swp|dmb|dsb|"
                    r"(ld|st)(add|clr|eor|set|[su]m(in|ax))")


def x86_64(text):
    """What an instruction does to the path, and the target of a jump."""
    prefixes, mnemonic, operands = parts(text)
    if mnemonic.startswith("ret"):
        return "ret", None
    if mnemonic.startswith("call"):
        return "calls", None
    if ("lock" in prefixes or (mnemonic.startswith("xchg") and "(" in operands)
            or mnemonic.endswith("fence")):
        return "takes a lock", None
    if mnemonic.startswith("jmp"):
        return "jump", operands.split()[0]
    return ("ends in" if mnemonic in ("ud2", "int3", "hlt") else "next"), None


def aarch64(text):
    _, mnemonic, operands = parts(text)
    if mnemonic.startswith("ret"):
        return "ret", None
    if mnemonic.startswith("bl"):
        return "calls", None
    if ATOMIC.match(mnemonic):
        return "takes a lock", None
    if mnemonic in ("b", "br"):
        return "jump", operands.split()[0]
    return ("ends in" if mnemonic in ("udf", "brk", "hlt") else "next"), None


# By the machine's number in an ELF file: its instructions, the most of malloc and free together,
# and the prefix of Debian's programs for it.
MACHINES = {62: (x86_64, 30, "x86_64-linux-gnu-"), 183: (aarch64, 40, "aarch64-linux-gnu-")}


def machine_of(library):
    """(instructions, limit, objdump) for a library."""
    with open(library, "rb") as file:
        number = int.from_bytes(file.read(20)[18:], "little")
    if number not in MACHINES:
        hosts.stop("no limit for machine %d" % number)
    instructions, limit, prefix = MACHINES[number]
    own = platform.machine() == instructions.__name__
    return instructions, limit, "objdump" if own else prefix + "objdump"


def disassembly(library, objdump):
    """{demangled name: [(address, text of the instruction)]} of the functions wanted."""
    command = [objdump, "-dC", "--no-show-raw-insn", library]
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


def walk(lines, instructions):
    """([(address, text)], complaint or None): from the entry to the first ret."""
    places = {address: index for index, (address, _) in enumerate(lines)}
    path, index, seen = [], 0, set()
    while index is not None and index < len(lines):
        address, text = lines[index]
        if index in seen:
            return path, "loops at %x" % address
        seen.add(index)
        path.append((address, text))
        what, target = instructions(text)
        if what == "ret":
            return path, None
        if what == "jump":
            index = places.get(int(target, 16)) if re.match(r"^[0-9a-f]+$", target) else None
            if index is None:
                return path, "leaves the function: %s" % text
        elif what == "next":
            index += 1
        else:
            return path, "%s: %s" % (what, text)
    return path, "has no ret"


def main():
    parser = hosts.parser(__doc__)
    parser.add_argument("--limit", type=int,
                        help="most instructions of the two together (30 on x86-64, 40 on aarch64)")
    options = parser.parse_args()
    library = hosts.library(options.library)
    instructions, limit, objdump = machine_of(library)
    limit = options.limit or limit
    if shutil.which(objdump) is None:
        hosts.stop("no %s on PATH (it comes with binutils)" % objdump)
    functions = disassembly(library, objdump)
    counts, complaints = [], []
    for name in NAMES:
        if not functions.get(name):
            hosts.stop("no symbol of the library ends in %s: stripped?" % name)
        path, complaint = walk(functions[name], instructions)
        print("%s: %d instructions" % (name, len(path)))
        for address, text in path:
            print("  %8x  %s" % (address, text))
        counts.append(len(path))
        if complaint:
            complaints.append("%s %s" % (name, complaint))
    plain, packed, free = counts
    total = max(plain, packed) + free
    print("malloc %d, packed %d, + free %d = %d, limit %d"
          % (plain, packed, free, total, limit))
    if total > limit:
        complaints.append("%d instructions are more than %d" % (total, limit))
    return hosts.finish(complaints, "no lock, no call, within the limit")


if __name__ == "__main__":
    sys.exit(main())
