"""All checks of this folder preload the built library."""
import pytest


@pytest.fixture(autouse=True)
def _library(library):
    """Stops at once where the library is not built."""
