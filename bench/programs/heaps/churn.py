"""Trees, instances, dicts and lists of tuples, built up to ten thousand objects and dropped, again
and again.

Nothing of a round is kept. In `alone` the process has no other objects; in `beside` it has a
large heap that does not change; in `holes` a random half of that heap is free, and the rounds
allocate in the gaps.
"""

import random

from phases import phase, report, scaled

ROUNDS, LIVE = scaled(25), scaled(200000)
DEPTH = 12


class Node:
    """A node of a binary tree, the smallest kind of instance."""
    __slots__ = ("left", "right")

    def __init__(self, depth):
        self.left = Node(depth - 1) if depth else None
        self.right = Node(depth - 1) if depth else None

    def size(self):
        return 1 + (self.left.size() + self.right.size() if self.left else 0)


class Person:
    """An instance with a dict."""

    def __init__(self, number):
        self.name = "person %d" % number
        self.age = number % 100
        self.friends = []


def people(count):
    made = [Person(number) for number in range(count)]
    for number, one in enumerate(made):
        one.friends.append(made[number * 7 % count].name)
    return sum(len(one.friends) for one in made)


def words(count):
    by_word = {}
    for number in range(count):
        by_word.setdefault("word %d" % (number % 4000), []).append("line %d" % number)
    return sum(len(lines) for lines in by_word.values())


def pairs(count):
    made = [(number * 0.5, "%06d" % number) for number in range(count)]
    made.sort(key=lambda pair: pair[1][::-1])
    return len(dict((name, value) for value, name in made))


def one_round():
    return Node(DEPTH).size() + people(4000) + words(10000) + pairs(8000)


def churn(name):
    with phase(name):
        return sum(one_round() for _ in range(ROUNDS))


def live(number):
    """A piece of the heap that is kept: four blocks of four sizes, or five."""
    return {"number": number, "name": "live %d" % number, "at": (number, number * 0.5)}


random.seed(12345)
total = churn("alone")
heap = [live(number) for number in range(LIVE)]
total += churn("beside")
for number in random.sample(range(LIVE), LIVE // 2):
    heap[number] = None
total += churn("holes")

kept = sum(one["number"] == number for number, one in enumerate(heap) if one)
expected = 3 * ROUNDS * (2 ** (DEPTH + 1) - 1 + 4000 + 10000 + 8000)
report([total, kept], total == expected and kept == LIVE - LIVE // 2)
