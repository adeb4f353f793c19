"""600 000 dicts with a list and a tuple each: seconds to build, collect, read and free them, MiB
of huge pages while they exist, and resident MiB 2.5 s after they were freed, as a line of JSON.
"""

import gc
import json
import time


def from_kernel(file, word):
    with open("/proc/self/" + file) as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(word)) / 1024


def timed(work):
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


things, build = timed(lambda: [{"a": n, "b": [n], "c": (n,)} for n in range(600_000)])
_, collect = timed(gc.collect)
total, read = timed(lambda: sum(each["b"][0] + each["c"][0] for each in things))
assert total == 599_999 * 600_000
huge = from_kernel("smaps_rollup", "AnonHugePages")
_, free = timed(things.clear)
time.sleep(2.5)
print(json.dumps({"build": build, "collect": collect, "read": read, "free": free,
                  "huge": huge, "idle": from_kernel("status", "VmRSS")}))
