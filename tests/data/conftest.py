import numpy as np
import pytest

from tests.support.image_files import save


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Seven images of one colour each, whose red channel says which it is."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(7):
        save(np.full((4, 6, 3), 10 * index, np.uint8), folder / f"image_{index}.png")
    return folder
