"""What several tests of the service start from."""

from pathlib import Path

import pytest

from tests.service.made import make_data, publish_all


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish the small corpus, and write its data, in a folder."""
    folder = tmp_path_factory.mktemp("made")
    publish_all(folder, str(folder / "published"))
    make_data(folder / "data")
    return folder
