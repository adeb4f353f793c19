"""Short-lived objects: instances with slots, floats, strings, tuples."""


class Point:
    __slots__ = ("x", "y", "label")

    def __init__(self, x, y, label):
        self.x, self.y, self.label = x, y, label

    def moved(self, by):
        return Point(self.x + by, self.y * 1.5, self.label.upper())


total = 0.0
kept = []
for number in range(20000):
    point = Point(number * 0.5, float(number), "p%d" % number).moved(1.25)
    total += point.x + point.y
    if number % 10 == 0:
        kept.append((point, point.label))
print(total, len(kept), kept[-1][1])
