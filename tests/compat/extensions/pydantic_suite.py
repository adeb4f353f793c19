"""pydantic and its core, which is written in Rust: models checked, dumped and dropped."""

import gc
import threading
from datetime import datetime
from typing import Dict, List, Optional, Union

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError


class Part(BaseModel):
    name: str = Field(min_length=1, max_length=2000)
    weight: float
    tags: List[str] = []
    made: Optional[datetime] = None


class Machine(BaseModel):
    parts: List[Part]
    index: Dict[str, Union[int, str, List[int]]]
    inner: Optional["Machine"] = None


Machine.model_rebuild()


def raw(count, depth=2):
    """What a machine is read from."""
    return {"parts": [{"name": "p%d" % number + "x" * (number % 700), "weight": number / 3,
                       "tags": ["t"] * (number % 9), "made": "2024-02-29T12:00:00Z"}
                      for number in range(count)],
            "index": {"k%d" % number: [number] * (number % 70) for number in range(count)},
            "inner": raw(count // 2, depth - 1) if depth else None}


def test_round_trip():
    for count in (1, 10, 300):
        machine = Machine.model_validate(raw(count))
        text = machine.model_dump_json()
        assert Machine.model_validate_json(text) == machine
        assert Machine(**machine.model_dump()) == machine
        assert machine.model_copy(deep=True) == machine


def test_many_models():
    machines = [Machine.model_validate(raw(5)) for _ in range(1000)]
    del machines[::2]
    gc.collect()
    assert sum(len(machine.parts) for machine in machines) == 2500


def test_errors():
    wrong = raw(200)
    for number, part in enumerate(wrong["parts"]):
        part["weight"] = "heavy" if number % 2 else part["weight"]
    for _ in range(30):
        with pytest.raises(ValidationError) as caught:
            Machine.model_validate(wrong)
        assert caught.value.error_count() == 100
        assert len(caught.value.errors()) == 100
        assert len(str(caught.value)) > 5000


def test_models_made_at_run_time():
    for number in range(60):
        fields = {"f%d" % field: (int, field) for field in range(number)}
        made = type("Made%d" % number, (BaseModel,), {
            "__annotations__": {key: kind for key, (kind, _) in fields.items()},
            **{key: value for key, (_, value) in fields.items()}})
        assert sum(made().model_dump().values()) == sum(range(number))


def test_schemas_and_adapters():
    adapter = TypeAdapter(Dict[str, List[Union[int, float, str]]])
    text = '{"%s": [1, 2.5, "%s"]}' % ("k" * 600, "v" * 9000)
    for _ in range(300):
        assert adapter.dump_json(adapter.validate_json(text)).startswith(b'{"kkk')
    assert "Part" in Machine.model_json_schema()["$defs"]


def test_threads():
    seen = []

    def work():
        for count in range(20, 50):
            text = Machine(**raw(count)).model_dump_json()
            seen.append(len(Machine.model_validate_json(text).parts))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(list(range(20, 50)) * 4)
