"""Large images in tiles: the results are those of the whole image."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.receptive_field import ReceptiveField
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.evaluation.parity import relative_error
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.tiling import Tiling, fed_size, parts

FIELD = ReceptiveField(top=3, bottom=2, left=1, right=4, alignment=4)


@given(
    size=st.integers(1, 500),
    tiles=st.integers(1, 12),
    before=st.integers(0, 60),
    after=st.integers(0, 60),
    alignment=st.integers(1, 32),
)
def test_parts_cover_an_axis_and_hold_the_receptive_field_of_their_pixels(size, tiles, before, after, alignment):
    tile = tiles * alignment
    found = parts(size, tile, before, after, alignment)
    assert [pixel for part in found for pixel in range(part.first, part.last)] == list(range(size))
    for part in found:
        assert part.begin % alignment == 0
        assert 0 <= part.begin <= max(0, part.first - before)
        assert min(size, part.last + after) <= part.end <= size
        assert part.end - part.begin <= fed_size(tile, before, after, alignment)
    lengths = {part.end - part.begin for part in found}
    assert len(lengths) <= 2  # one for all, and a shorter one where the end is not aligned


@settings(deadline=None)
@given(size=st.tuples(st.integers(1, 60), st.integers(1, 60)), tile=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_the_result_of_each_tile_is_placed_at_its_position(size, tile):
    def net(images):
        assert images.flags["C_CONTIGUOUS"]
        return images[..., 0]

    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    found = Tiling.of(tile, FIELD).run(net, image)
    np.testing.assert_array_equal(found, image[..., 0])
    assert found.dtype == np.uint8


def test_no_tile_is_larger_than_fed():
    sizes = []
    tiling = Tiling.of((10, 20), FIELD)
    assert tiling.fed == (4 + 12 + 4, 4 + 20 + 4)  # aligned reach, aligned tile, reach and what alignment adds
    tiling.run(lambda images: sizes.append(images.shape[1:3]) or images[..., 0], np.zeros((1, 100, 203, 3), np.uint8))
    assert max(sizes) == tiling.fed
    assert len(set(sizes)) <= 2


def test_a_net_that_scales_by_the_images_size_takes_multiples_of_its_alignment_only():
    tiling = Tiling.of((8, 8), ReceptiveField(1, 1, 1, 1, alignment=4, any_size=False))
    tiling.run(lambda images: images[..., 0], np.zeros((1, 64, 32, 3), np.uint8))
    with pytest.raises(InputError, match="got 64x33; expected multiples of 4"):
        tiling.run(lambda images: images[..., 0], np.zeros((1, 64, 33, 3), np.uint8))


@pytest.mark.parametrize("tile", [(0, 8), (8, -1), (8,), (8, 8, 8), (8.5, 8), 512, "512x512", None])
def test_bad_sizes_of_tiles_are_refused(tile):
    with pytest.raises(UsageError, match="bad size of tiles"):
        Tiling.of(tile, FIELD)


# With engines


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(1).integers(0, 256, (531, 700, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(531, 700), (512, 352), (20, 700)])
def test_logits_in_tiles_are_those_of_the_whole(engine, photo, size):
    image = photo[: size[0], : size[1]]
    with (
        Segmenter(engine("tensor"), threads=1) as whole,
        Segmenter(engine("tensor"), threads=1, tile=(64, 96)) as tiled,
    ):
        expected = whole.logits(image)
        assert relative_error(expected, tiled.logits(image)) <= 1e-5
        batch = np.stack([image, image[:, ::-1]])
        assert relative_error(whole.logits(batch), tiled.logits(batch)) <= 1e-5
        assert (tiled(image) == whole(image)).mean() > 0.9999


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_labels_in_tiles_are_those_of_the_whole(engine, photo, precision):
    with Segmenter(engine(precision=precision), threads=1) as whole:
        expected = whole(photo)
    with Segmenter(engine(precision=precision), threads=1, tile=(128, 128)) as tiled:
        found = tiled(photo)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert (found == expected).mean() > 0.9999


def test_an_engine_that_does_not_say_how_far_its_net_sees_is_refused(tiny_net):
    with pytest.raises(UsageError, match="does not say how far its net sees"):
        Segmenter(tiny_net(np.eye(3)), tile=(64, 64))


_PEAK = """
import re, sys
from pathlib import Path
import numpy as np
from fcn_deploy.runtime import Segmenter
side = int(sys.argv[2])
image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
with Segmenter(sys.argv[1], threads=2, tile=(256, 256)) as segmenter:
    segmenter(image)
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def peak_mib(engine, side):
    # As /proc has it: what getrusage has may be the peak of the process that started this one.
    command = [sys.executable, "-c", _PEAK, str(engine), str(side)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_does_not_grow_with_the_image(engine):
    small, large = peak_mib(engine(), 1024), peak_mib(engine(), 4096)
    image_and_labels = (4096**2 - 1024**2) * (3 + 1) / 2**20
    # As a whole, the first layer's output alone would be 16 times the labels and more.
    assert large - small < image_and_labels + 100
