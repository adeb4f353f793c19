"""copy.deepcopy: nested dicts, lists and tuples, and the memo of deepcopy."""

import copy

original = {number: {"list": list(range(10)), "pair": (number, [str(number)]), "set": {number}}
            for number in range(120)}
for _ in range(4):
    original = copy.deepcopy(original)
print(len(original), sum(len(one["list"]) for one in original.values()))
