"""One kind of list, buffer or dict that grows in small steps, and its processor time.

    growing.py CASE SHARE       prints {"right": ..., "seconds": ...}
    growing.py                  prints the names of the cases

The memory is reallocated at each step, moves from one size class to the next, then out of the
pools: the transitions where an allocator can lose time. The time is this process's own (user
and system), measured from inside, without the start of the interpreter.
"""

import io
import json
import sys
import time

PIECE = b"0123456789abcdef"


def items(length):
    grown = []
    for number in range(length):
        grown.append(number)
    return grown


def items_in_turn(count, length):
    """No list can grow in place, because the others grow as well."""
    grown = [[] for _ in range(count)]
    for number in range(length):
        for one in grown:
            one.append(number)
    return grown


def buffer(pieces):
    grown = bytearray()
    for _ in range(pieces):
        grown += PIECE
    return grown


def text(pieces):
    grown, piece = "", PIECE.decode()
    for _ in range(pieces):
        grown += piece
    return grown


def stream(pieces):
    grown = io.BytesIO()
    for _ in range(pieces):
        grown.write(PIECE)
    return grown


def table(length):
    grown = {}
    for number in range(length):
        grown[number] = number
    return grown


# name: grows in steps, built in one step, repetitions (about 0.1 s)
CASES = {
    "list to 150": (lambda: items(150), lambda: list(range(150)), 16000),
    "list to 4000": (lambda: items(4000), lambda: list(range(4000)), 600),
    "list to 100000": (lambda: items(100000), lambda: list(range(100000)), 22),
    "1000 lists in turn to 200": (lambda: items_in_turn(1000, 200),
                                  lambda: [list(range(200))] * 1000, 9),
    "40 lists in turn to 5000": (lambda: items_in_turn(40, 5000),
                                 lambda: [list(range(5000))] * 40, 9),
    "bytearray to 2 KiB": (lambda: buffer(128), lambda: bytearray(PIECE * 128), 16000),
    "bytearray to 100 KiB": (lambda: buffer(6400), lambda: bytearray(PIECE * 6400), 350),
    "str to 500": (lambda: text(31), lambda: PIECE.decode() * 31, 50000),
    "str to 24 KiB": (lambda: text(1536), lambda: PIECE.decode() * 1536, 800),
    "BytesIO to 64 KiB": (lambda: stream(4096), lambda: io.BytesIO(PIECE * 4096), 500),
    "dict to 500": (lambda: table(500), lambda: {number: number for number in range(500)}, 6000),
    "dict to 50000": (lambda: table(50000),
                      lambda: {number: number for number in range(50000)}, 40),
}


def content(value):
    return value.getvalue() if isinstance(value, io.BytesIO) else value


def main():
    if len(sys.argv) < 3:
        print(json.dumps(list(CASES)))
        return
    grow, made, repeats = CASES[sys.argv[1]]
    repeats = max(1, round(repeats * float(sys.argv[2])))
    began = time.process_time()
    for _ in range(repeats):
        grown = grow()
    seconds = time.process_time() - began
    right = content(grown) == content(made())
    print(json.dumps({"right": right, "seconds": seconds}))


main()
