"""200 000 tuples built and dropped, fifty times.

An allocator that returns the memory between the bursts has to map it again, with a page fault
for each page. One that links the free blocks has to walk the links fifty times.
"""

from phases import phase, report, scaled

COUNT, ROUNDS = scaled(200000), scaled(50)


def burst():
    made = [(1, 2, number) for number in range(COUNT)]
    return made[COUNT // 2][-1]


with phase("rounds"):
    total = sum(burst() for _ in range(ROUNDS))

report(total, total == ROUNDS * (COUNT // 2))
