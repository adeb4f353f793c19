"""200 000 tuples built and dropped, fifty times.

An allocator that gives the memory back between the bursts has to ask for it again: a
page fault for each page. One that keeps a place for each block that is free has to
find it fifty times.
"""

from phases import phase, report, scaled

COUNT, ROUNDS = scaled(200000), scaled(50)


def burst():
    made = [(1, 2, number) for number in range(COUNT)]
    return made[COUNT // 2][-1]


with phase("rounds"):
    total = sum(burst() for _ in range(ROUNDS))

report(total, total == ROUNDS * (COUNT // 2))
