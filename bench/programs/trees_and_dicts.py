"""Trees of nodes and of dicts: built, traversed and dropped as a whole, again and again."""


class Node:
    def __init__(self, depth, name):
        self.name = name
        self.children = [Node(depth - 1, name * 2 + side) for side in (0, 1)] if depth else []

    def count(self):
        return 1 + sum(child.count() for child in self.children)


def nested(depth):
    return {"depth": depth, "left": nested(depth - 1), "right": nested(depth - 1)} if depth else {}


def size(tree):
    return 1 + sum(size(part) for part in tree.values() if isinstance(part, dict))


total = 0
for _ in range(3):
    tree = Node(10, 1)
    total += tree.count()
    tree = nested(10)
    total += size(tree)
    tree = None
print(total)
