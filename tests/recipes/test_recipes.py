import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_deploy.demo import CALIBRATION_SEEDS, CLASSES, IGNORE_INDEX, make_scene

CALIBRATION = Path(__file__).parents[2] / "calibration"
PICK = runpy.run_path(str(CALIBRATION / "recipes" / "pick_frames.py"))
MAKE = runpy.run_path(str(CALIBRATION / "recipes" / "make_sample.py"))
SAMPLE = sorted((CALIBRATION / "sample" / "images").iterdir())


def pick(*arguments):
    return CliRunner().invoke(PICK["main"], [str(argument) for argument in arguments])


@pytest.fixture
def colours(tmp_path):
    """Ten near-black frames, and a red and a white one among them."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(12):
        colour = {4: (250, 0, 0), 9: (255, 255, 255)}.get(index, (index, index, index))
        Image.new("RGB", (40, 30), colour).save(folder / f"frame_{index:02d}.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_frames_are_evenly_spread(colours, tmp_path):
    result = pick(colours, tmp_path / "picked", "--count", 4)
    assert result.exit_code == 0, result.output
    assert [path.name for path in sorted((tmp_path / "picked").iterdir())] == [
        "frame_01.png", "frame_04.png", "frame_07.png", "frame_10.png",
    ]  # fmt: skip


def test_diverse_frames_include_what_is_rare(colours, tmp_path):
    result = pick(colours, tmp_path / "picked", "--count", 3, "--diverse")
    assert result.exit_code == 0, result.output
    picked = {path.name for path in (tmp_path / "picked").iterdir()}
    assert len(picked) == 3
    assert {"frame_04.png", "frame_09.png"} < picked


def test_a_picked_frame_is_the_frame(colours, tmp_path):
    pick(colours, tmp_path / "picked", "--count", 12)
    for path in (tmp_path / "picked").iterdir():
        assert path.read_bytes() == (colours / path.name).read_bytes()


@pytest.mark.parametrize("diverse", [[], ["--diverse"]])
def test_more_frames_than_there_are_is_an_error(colours, tmp_path, diverse):
    result = pick(colours, tmp_path / "picked", "--count", 13, *diverse)
    assert result.exit_code == 1
    assert "holds 12 images" in result.output
    assert not (tmp_path / "picked").exists()


def test_a_target_in_use_is_refused(colours, tmp_path):
    assert pick(colours, tmp_path / "picked", "--count", 2).exit_code == 0
    result = pick(colours, tmp_path / "picked", "--count", 3)
    assert result.exit_code == 1
    assert "not empty" in result.output
    assert len(list((tmp_path / "picked").iterdir())) == 2


def test_images_are_known_by_content(colours, tmp_path):
    shutil.move(colours / "frame_00.png", colours / "frame_00.dat")
    result = pick(colours, tmp_path / "picked", "--count", 12)
    assert result.exit_code == 0, result.output


@given(total=st.integers(1, 10_000), data=st.data())
def test_even_indices_are_distinct_sorted_and_centred(total, data):
    count = data.draw(st.integers(1, min(total, 200)))
    indices = PICK["evenly"](total, count)
    assert len(set(indices)) == count
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] < total
    assert abs(indices[0] - (total - 1 - indices[-1])) <= 1


@given(total=st.integers(1, 60), copies=st.booleans(), data=st.data())
def test_farthest_points_are_distinct_even_among_copies(total, copies, data):
    rng = np.random.default_rng(total)
    points = np.zeros((total, 3), np.float32) if copies else rng.random((total, 3), np.float32)
    count = data.draw(st.integers(1, total))
    chosen = PICK["farthest"](points, count)
    assert len(set(chosen)) == count
    assert chosen == sorted(chosen)


def test_the_sample_is_made_as_it_says(tmp_path):
    result = CliRunner().invoke(MAKE["main"], [str(tmp_path), "--count", "2", "--size", "48", "64"])
    assert result.exit_code == 0, result.output
    for kind in ("images", "labels"):
        assert len(list((tmp_path / kind).iterdir())) == 2


def test_the_sample_holds_twelve_labelled_calibration_scenes():
    assert [path.name for path in SAMPLE] == [f"scene_{seed}.png" for seed in CALIBRATION_SEEDS[:12]]
    assert sum(path.stat().st_size for path in (CALIBRATION / "sample").rglob("*.png")) < 2_000_000
    for path in SAMPLE:
        with Image.open(path) as image, Image.open(CALIBRATION / "sample" / "labels" / path.name) as labels:
            assert image.mode == "RGB"
            assert image.size == labels.size
            assert set(np.unique(np.asarray(labels)).tolist()) <= {*range(len(CLASSES)), IGNORE_INDEX}


def test_the_sample_is_what_the_generator_still_makes():
    # A few pixels may round otherwise on another machine; another scene would differ nearly everywhere.
    seed = CALIBRATION_SEEDS[0]
    scene = make_scene(seed)
    with Image.open(CALIBRATION / "sample" / "images" / f"scene_{seed}.png") as image:
        assert np.abs(np.asarray(image, np.int16) - scene.image).mean() < 1
    with Image.open(CALIBRATION / "sample" / "labels" / f"scene_{seed}.png") as labels:
        assert (np.asarray(labels) == scene.labels).mean() > 0.99
