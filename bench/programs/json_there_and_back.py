"""JSON: a list of records to text and back, a few times."""

import json

records = [{"id": number, "name": "name %d" % number, "tags": ["a", "b", str(number % 7)],
            "position": {"x": number / 3, "y": -number}, "seen": number % 2 == 0, "note": None}
           for number in range(600)]
for _ in range(5):
    text = json.dumps(records)
    records = json.loads(text)
print(len(text), records[-1]["position"])
