"""What all tests share: where the test data of the project's own machines lies, if it does."""

import os
from pathlib import Path

import pytest

# The models of the tests are tiny: more threads only wait for one another, and on a busy machine
# they spin. Subprocesses and Ray's workers inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REAL_DATA = Path(
    os.environ.get("CAPLAB_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data"
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real photographs, broken files and published heads; skips where they are not present."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real test data is not on this machine")
    return REAL_DATA


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need the curated web come first: with `-n` none of them should start last."""
    first = {item.path for item in items if "curated" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in first)
