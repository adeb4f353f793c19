"""Instructions of one malloc and one free that hit, counted while they run.

A small C program (hit_path.c) calls PyObject_Malloc(48) and PyObject_Free in a loop;
it runs under callgrind with two different numbers of rounds. Callgrind says how many
instructions each function has executed itself, so the difference of the two runs,
divided by the difference of the rounds, is what one round costs, function by
function: the loop, the exported names (which lead to the functions), and the two
functions that are also in CPython's tables, or their twins.
"""

import os
import re

import hosts

ROUNDS = (2000, 52000)
FUNCTION = re.compile(r"^fn=\((\d+)\)(?: (.*))?$")
EXPORTED = ("PyObject_Malloc", "PyObject_Free")


def build(library, name="hit_path"):
    """The program of this name, linked against the library; its SONAME must lead to it as well."""
    folder = os.path.join(hosts.BUILD, "lib")
    os.makedirs(folder, exist_ok=True)
    link = os.path.join(folder, "libobmalloc.so.0")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(os.path.relpath(library, folder), link)
    program = os.path.join(hosts.BUILD, name)
    # -fno-plt: the calls go to the library without a stop at a stub of the linker.
    hosts.compile_c(name + ".c", ["-O2", "-Wall", "-Werror", "-fno-plt",
                                  os.path.join(hosts.HERE, name + ".c"), "-o", program,
                                  library, "-Wl,-rpath,%s" % folder])
    return program


def self_costs(path):
    """{function: instructions executed in itself} of a file of callgrind's."""
    names, costs, current, skip = {}, {}, None, False
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            heading = FUNCTION.match(line)
            if heading:
                number, name = heading.groups()
                current = names.setdefault(number, name)
            elif line.startswith("cfn="):
                called = FUNCTION.match(line[1:])
                if called and called.group(2):
                    names.setdefault(*called.groups())
            elif line.startswith("calls="):
                skip = True     # the next line is the cost of what was called
            elif re.match(r"^[0-9+*-]", line):
                if not skip and current is not None:
                    costs[current] = costs.get(current, 0) + int(line.split()[1])
                skip = False
    return costs


def count(program, rounds, run_valgrind):
    """Costs by function of a run; run_valgrind(arguments, environment, out file)."""
    out = os.path.join(hosts.BUILD, "callgrind.hit_path.%d" % rounds)
    run_valgrind([program, str(rounds)], out)
    return self_costs(out)


def report(run_valgrind):
    """Prints the counts per round."""
    program = build(hosts.LIBRARY)
    few, many = (count(program, rounds, run_valgrind) for rounds in ROUNDS)
    between = ROUNDS[1] - ROUNDS[0]
    each = {name: (many[name] - few.get(name, 0)) / between for name in many}
    each = {name: cost for name, cost in each.items() if cost >= 0.01}
    print("instructions of one malloc(48) and one free that hit (%d rounds less %d):"
          % ROUNDS[::-1])
    for name, cost in sorted(each.items(), key=lambda item: -item[1]):
        print("  %7.2f  %s" % (cost, short(name)))
    loop = sum(cost for name, cost in each.items() if name == "main")
    stubs = sum(cost for name, cost in each.items() if name in EXPORTED)
    total = sum(each.values())
    print("  %7.2f  a round, with the loop" % total)
    print("  %7.2f  a round, without the loop" % (total - loop))
    print("  %7.2f  the two functions alone, without the exported names" % (total - loop - stubs))


def short(name):
    """A demangled name without its types and parameters' noise."""
    return re.sub(r"::h[0-9a-f]{16}$", "", name.split("'")[0])
