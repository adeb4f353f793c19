"""Every fault of mutants.py can be planted in the sources as they are."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from mutants import MUTANTS, ROOT  # noqa: E402


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.kind}: {mutant.what}")
def test_the_place_is_there_once(mutant):
    text = (ROOT / "src" / mutant.file).read_text()
    assert len(mutant.places(text)) == 1, mutant.old
