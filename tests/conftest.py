from pathlib import Path

import pytest
from hypothesis import settings

# The same examples everywhere, and no test that fails because a machine is slow.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def speech(repository: Path) -> Path:
    """The folder with the manifests of real speech, which lies beside the source tree."""
    folder = repository.parent / "shared" / "speech"
    if not (folder / "dev.jsonl").is_file():
        pytest.skip("no real speech: put its manifests into ../shared/speech")
    return folder
