"""How long a lock is held while free pages go back to the kernel.

    bench/lock_time.py

lock_time.c builds 2000 pools, frees blocks so that in each pool nothing, every second
page or all pages but one can go back, and times the round that returns them. A lock is
held for one pool at a time, so a round's time by its pools is the bound. The best of
seven rounds is shown: a lock is not held longer because the machine is busy.
"""

import json
import os
import subprocess
import sys

import hit_path
import hosts
import pairs


def main():
    options = hosts.parser(__doc__).parse_args()
    pairs.reproduce()
    library = hosts.library(options.library)
    program = hit_path.build(library, "lock_time")
    plain = {key: value for key, value in os.environ.items() if not key.startswith("OBMALLOC_")}
    answer = json.loads(subprocess.run([program], check=True, env=plain,
                                       stdout=subprocess.PIPE).stdout.decode())
    rows = [[case, "%.2f" % (nanoseconds / 1000), "%d" % mib]
            for case, (nanoseconds, mib) in answer.items()]
    pairs.table(["in each of 2000 pools", "us per pool", "MiB returned"], rows)
    bad = []
    if answer["nothing to return"][1] > 1 or answer["every second page"][1] < 50:
        bad.append("what went back is not what was free")
    return hosts.finish(bad, "what was free went back")


if __name__ == "__main__":
    sys.exit(main())
