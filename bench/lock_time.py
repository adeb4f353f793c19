"""The benchmark `lock_time`: how long a lock is held while free pages are returned.

programs/lock_time.c builds 2000 pools, frees blocks so that in each pool no page, every second
page or all pages but one can be returned, and times the round that returns them. A lock is held
for one pool at a time, so a round's time by its pools is the bound. The program prints the best
of seven rounds: a lock is not held longer because the machine is busy.
"""

import json

import hosts
import measure
from instructions import build
from results import Row


def measured(benchmark, options):
    program, rows, complaints = build("lock_time", hosts.LIBRARY), {}, []
    for _ in range(1 if options.quick else options.rounds or benchmark.rounds):
        printed = json.loads(measure.run([program], hosts.clean_environment()).out)
        for case, (nanoseconds, mib) in printed.items():
            for name, unit, value in (("time for each pool", "second", nanoseconds * 1e-9),
                                      ("returned", "byte", mib * 2**20)):
                rows.setdefault("%s, %s" % (case, name), Row(unit)).values.append(value)
        if printed["nothing to return"][1] > 1 or printed["every second page"][1] < 50:
            complaints.append("the returned pages are not the free ones")
    yield "C", {"obmalloc": rows}, complaints
