"""Builds small objects of mixed sizes and frees none of them."""

import os
import sys

count = int(sys.argv[1])
kept = []
for number in range(count):
    kind, size = number % 4, number // 4 % 12
    if kind == 0:
        kept.append(dict.fromkeys(range(size), number))
    elif kind == 1:
        kept.append((number,) * (size + 1))
    elif kind == 2:
        kept.append("%0*d" % (size * 16 + 1, number))
    else:
        kept.append([number] * (size + 1))
with open("/proc/self/status") as status:
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
print(len(kept), sum(map(len, kept)), peak)
sys.stdout.flush()
os._exit(0)     # without it, finalization would free them
