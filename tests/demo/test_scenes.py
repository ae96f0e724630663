import hashlib
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_deploy.demo import (
    CALIBRATION_SEEDS,
    CLASSES,
    DEFAULT_SIZE,
    EVALUATION_SEEDS,
    IGNORE_INDEX,
    PALETTE,
    TRAINING_SEEDS,
    Scene,
    make_scene,
    write_scenes,
)
from fcn_deploy.demo.textures import FINE, ROUGH, SMOOTH, WHITE, Noise, noise_tile, stripe
from fcn_deploy.errors import InputError

SEEDS = range(24)


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed) for seed in SEEDS]


def test_a_seed_makes_the_same_scene_again(scenes):
    again = make_scene(SEEDS[3])
    assert np.array_equal(again.image, scenes[3].image)
    assert np.array_equal(again.labels, scenes[3].labels)


def test_another_process_makes_the_same_scene(scenes):
    code = (
        "import hashlib; from fcn_deploy.demo import make_scene; scene = make_scene(3);"
        "print(hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest())"
    )
    here = hashlib.sha256(scenes[3].image.tobytes() + scenes[3].labels.tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_seeds_make_different_scenes(scenes):
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)
    assert len({scene.labels.tobytes() for scene in scenes}) == len(scenes)


def test_shapes_and_types(scenes):
    for scene in scenes:
        assert scene.image.shape == (*DEFAULT_SIZE, 3)
        assert scene.labels.shape == DEFAULT_SIZE
        assert scene.image.dtype == scene.labels.dtype == np.uint8


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(32, 130), width=st.integers(32, 130))
def test_any_size_from_32_on(seed, height, width):
    scene = make_scene(seed, (height, width))
    assert scene.image.shape == (height, width, 3)
    assert set(np.unique(scene.labels).tolist()) <= {*range(len(CLASSES)), IGNORE_INDEX}


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (0, 0), (-5, 64)])
def test_a_size_too_small_is_refused(size):
    with pytest.raises(InputError, match="at least 32x32"):
        make_scene(0, size)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="0 or more"):
        make_scene(-1)


def test_an_image_that_does_not_fit_its_labels_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        Scene(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 41), np.uint8))


def test_every_class_occurs_and_none_rules(scenes):
    counts = sum(np.bincount(scene.labels.ravel(), minlength=256) for scene in scenes)
    shares = counts / counts.sum()
    assert (shares[: len(CLASSES)] > 0.002).all()
    assert shares[: len(CLASSES)].max() < 0.5
    assert shares[IGNORE_INDEX] < 0.04
    assert shares[len(CLASSES) : IGNORE_INDEX].sum() == 0


def test_every_scene_is_a_mix_of_classes(scenes):
    for scene in scenes:
        assert len(set(np.unique(scene.labels).tolist()) - {IGNORE_INDEX}) >= 4


def relief(scene, name):
    """Mean step between neighbouring 3x3 blocks that lie wholly in a class, in grey levels; None where it is small."""
    grey = np.asarray(Image.fromarray(scene.image).convert("L").reduce(3), np.float32)[:64, :85]
    inside = (scene.labels[:192, :255] == CLASSES.index(name)).reshape(64, 3, 85, 3).all((1, 3))
    pairs = inside[:, 1:] & inside[:, :-1]
    return np.abs(np.diff(grey, axis=1))[pairs].mean() if pairs.sum() > 20 else None


@pytest.mark.parametrize("name", ["building", "road", "sidewalk", "vegetation", "car", "pedestrian"])
def test_surfaces_have_texture(scenes, name):
    # The sky has nothing but the sensor's noise, which is everywhere: a surface must have more.
    of_class = [value for scene in scenes if (value := relief(scene, name)) is not None]
    of_noise = [value for scene in scenes if (value := relief(scene, "sky")) is not None]
    assert len(of_class) >= 5
    assert np.median(of_class) > 1.4 * np.median(of_noise)


def test_no_class_is_given_away_by_its_colour(scenes):
    # Nearest mean colour of the class, learnt on half of the scenes: far from enough to label the other half.
    half = len(scenes) // 2
    means = []
    for index in range(len(CLASSES)):
        pixels = np.concatenate([scene.image[scene.labels == index] for scene in scenes[:half]])
        means.append(pixels.mean(0))
    right = total = 0
    for scene in scenes[half:]:
        distance = np.square(scene.image[:, :, None].astype(float) - np.asarray(means)).sum(-1)
        counted = scene.labels != IGNORE_INDEX
        right += (distance.argmin(-1) == scene.labels)[counted].sum()
        total += counted.sum()
    assert right / total < 0.6


def test_sky_is_above_road(scenes):
    rows = np.arange(DEFAULT_SIZE[0])[:, None]
    for scene in scenes:
        sky, road = scene.labels == CLASSES.index("sky"), scene.labels == CLASSES.index("road")
        if sky.sum() > 50 and road.sum() > 50:
            assert (rows * sky).sum() / sky.sum() < (rows * road).sum() / road.sum()


def test_seed_ranges_are_disjoint():
    ranges = sorted((TRAINING_SEEDS, CALIBRATION_SEEDS, EVALUATION_SEEDS), key=lambda seeds: seeds.start)
    assert all(len(seeds) >= 10_000 and seeds.step == 1 for seeds in ranges)
    assert all(before.stop <= after.start for before, after in pairwise(ranges))


def test_one_distinct_colour_a_class():
    assert len(PALETTE) == len(set(PALETTE)) == len(CLASSES) == len(set(CLASSES))


def test_written_scenes_read_back(tmp_path):
    folder = tmp_path / "deep" / "scenes"
    write_scenes(folder, [12, 100_003], (48, 64))
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["scene_00012.png", "scene_100003.png"]
    scene = make_scene(12, (48, 64))
    with Image.open(folder / "images" / "scene_00012.png") as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), scene.image)
    with Image.open(folder / "labels" / "scene_00012.png") as labels:
        assert labels.mode == "L"
        assert np.array_equal(np.asarray(labels), scene.labels)


def test_writing_where_a_file_is_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot make the folder"):
        write_scenes(tmp_path / "file", [0])


def test_the_generator_needs_neither_torch_nor_onnx():
    code = (
        "import sys; from fcn_deploy.demo import make_scene, checkpoint_path; make_scene(0); checkpoint_path();"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'safetensors', 'click'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("slope", [WHITE, FINE, ROUGH, SMOOTH])
def test_noise_is_standardised_and_seamless(slope):
    tile = noise_tile(slope, 0)
    assert abs(tile.mean()) < 0.05
    assert 0.9 < tile.std() < 1.1
    seam, inside = np.abs(tile[:, 0] - tile[:, -1]).mean(), np.abs(np.diff(tile, axis=1)).mean()
    assert seam < 1.5 * inside


def test_steeper_spectra_are_smoother():
    steps = [np.abs(np.diff(noise_tile(slope, 1), axis=1)).mean() for slope in (WHITE, FINE, ROUGH, SMOOTH)]
    assert steps == sorted(steps, reverse=True)


@given(u=st.floats(-1e4, 1e4, allow_nan=False, width=32), v=st.floats(-1e4, 1e4, allow_nan=False, width=32))
def test_noise_wraps_around_at_any_coordinate(u, v):
    here = Noise(np.random.default_rng(0)).at(ROUGH, np.asarray([[u]]), np.asarray([[v]]))
    there = Noise(np.random.default_rng(0)).at(ROUGH, np.asarray([[u + 256]]), np.asarray([[v - 512]]))
    assert here.shape == (1, 1)
    # Adding a period can round up over the border of a texel, in 64 bits only for coordinates next to one.
    if min(u % 1, v % 1) > 1e-6 and max(u % 1, v % 1) < 1 - 1e-6:
        assert here == there


@given(center=st.floats(-2, 2), width=st.floats(0.01, 1), footprint=st.floats(0.001, 1))
def test_a_stripe_covers_its_share_whatever_the_pixel(center, width, footprint):
    x = np.arange(-5, 5, footprint)
    covered = stripe(x, center, width, np.full_like(x, footprint)).sum() * footprint
    assert covered == pytest.approx(width, rel=0.05, abs=0.02)
