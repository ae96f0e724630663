import json
import os
import shutil
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fcn_deploy
from fcn_deploy.demo import EVALUATION_SEEDS, checkpoint_path, make_scene
from fcn_deploy.runtime import Segmenter, colorize, overlay
from tests.support.runs import labelled, names, started, wait_for
from tests.support.videos import STEP, TICK, make_video, moving, read_back

pytest.importorskip("av")


@pytest.fixture
def clip(tmp_path):
    """A video of 12 frames whose rate varies."""
    times = [index * STEP + 700 * (index % 3) for index in range(12)]
    return make_video(tmp_path / "clip.mp4", moving(12), times=times)


def close(one, other):
    return np.abs(one.astype(int) - other).mean() < 8


# What is written


def test_a_video_becomes_videos_with_the_same_timing(predict, exported, clip, tmp_path):
    out = tmp_path / "out"
    said = predict(clip, "--save", "labels,color,overlay,panel,legend", "-o", out, "--batch", 5)
    assert said.out == f"wrote 5 files for 12 frames of video into {out}\n"
    assert names(out) == [*(f"clip.{kind}.mp4" for kind in ("color", "labels", "overlay", "panel")), "legend.png"]
    frames, times = read_back(clip)
    expected, spec = labelled(exported("fcn8s"), frames)
    labels, _ = read_back(out / "clip.labels.mp4", "gray")
    np.testing.assert_array_equal(labels, expected)
    for kind in ("labels", "color", "overlay", "panel"):
        assert read_back(out / f"clip.{kind}.mp4", "gray" if kind == "labels" else "rgb24")[1] == times
    color = np.stack([colorize(each, spec.palette) for each in expected])
    assert np.median(np.abs(read_back(out / "clip.color.mp4")[0].astype(int) - color)) < 8
    over = np.stack([overlay(*each, spec.palette) for each in zip(frames, expected, strict=True)])
    assert np.abs(read_back(out / "clip.overlay.mp4")[0].astype(int) - over).mean() < 12
    panels = read_back(out / "clip.panel.mp4")[0]
    assert close(panels[:, :48, :64], frames)


def test_json_has_frames_their_rate_and_latency(predict, clip, photo_folder, tmp_path):
    report = json.loads(predict(clip, photo_folder, "-o", tmp_path / "out", "--json").out)
    assert (report["images"], report["frames"], report["rounds"]) == (10, 22, 22)
    assert report["frames_per_second"] > 0
    assert 0 < report["min_ms"] <= report["median_ms"] <= report["percentiles_ms"]["99"]
    (video,) = report["videos"]
    assert (video["source"], video["frames"], video["damaged"], video["rounds"]) == (str(clip), 12, 0, 12)
    assert video["files"] == [str(tmp_path / "out" / f"clip.{kind}.mp4") for kind in ("labels", "overlay")]
    assert report["files"][-2:] == video["files"]


def test_every_third_frame_keeps_its_time(predict, clip, tmp_path):
    said = predict(clip, "--every", 3, "--max-frames", 3, "--save", "labels", "-o", tmp_path / "out", "--json")
    assert json.loads(said.out)["frames"] == 3
    assert read_back(tmp_path / "out" / "clip.labels.mp4", "gray")[1] == read_back(clip)[1][:9:3]
    assert "predicting " in said.err
    assert "3 of 3, " in said.err
    assert " frames/s, " in said.err
    assert " ms (median " in said.err


def test_every_and_most_are_for_images_too(predict, photo_folder, tmp_path):
    predict(photo_folder, "--every", 4, "--max-frames", 2, "--save", "labels", "--batch", 3, "-o", tmp_path / "out")
    assert names(tmp_path / "out") == ["photo_00.labels.png", "photo_04.labels.png"]


def test_batches_of_images_give_the_labels_of_each(predict, exported, photo_folder, photos, tmp_path):
    for batch in (1, 4):
        predict(photo_folder, "--save", "labels", "--batch", batch, "-o", tmp_path / str(batch))
    for name in names(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()


def test_the_legend_alone_labels_nothing(predict, clip, tmp_path):
    said = predict(clip, "--save", "legend", "-o", tmp_path / "out", "--json")
    assert json.loads(said.out)["frames"] == 0
    assert names(tmp_path / "out") == ["legend.png"]
    first = (tmp_path / "out" / "legend.png").read_bytes()
    predict(clip, "--save", "legend", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "legend.png").read_bytes() == first


def test_a_turned_video_of_odd_size_comes_out_upright_at_its_size(predict, tmp_path):
    pictures = moving(3, (47, 62))
    clip = make_video(tmp_path / "a.mov", pictures, rotation=90, container="mov", pix_fmt="yuv444p")
    predict(clip, "--save", "overlay,labels", "-o", tmp_path / "out")
    assert read_back(tmp_path / "out" / "a.overlay.mp4")[0].shape == (3, 62, 47, 3)
    assert read_back(tmp_path / "out" / "a.labels.mp4", "gray")[0].shape == (3, 62, 47)


def test_times_begin_at_zero_and_sound_is_left_out_with_a_word(predict, tmp_path):
    times = [90_000 + STEP * index for index in range(4)]
    clip = make_video(tmp_path / "a.mkv", moving(4), times=times, container="matroska", sound=True)
    said = predict(clip, "--save", "labels", "-o", tmp_path / "out")
    assert f"{clip}: its sound is left out" in said.err
    written = read_back(tmp_path / "out" / "a.labels.mp4", "gray")[1]
    assert written == [time - read_back(clip)[1][0] for time in read_back(clip)[1]]


def test_a_film_of_wide_pixels_stays_wide(predict, tmp_path):
    import av

    clip = make_video(tmp_path / "a.mp4", moving(3), aspect=Fraction(4, 3))
    predict(clip, "--save", "overlay", "-o", tmp_path / "out")
    with av.open(str(tmp_path / "out" / "a.overlay.mp4")) as video:
        assert video.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_labels_in_tiles_are_those_of_the_whole(predict, clip, tmp_path):
    for folder, tile in (("whole", ()), ("tiled", ("--tile", "32x32"))):
        predict(clip, *tile, "--save", "labels", "--batch", 3, "-o", tmp_path / folder)
    whole, tiled = (read_back(tmp_path / folder / "clip.labels.mp4", "gray")[0] for folder in ("whole", "tiled"))
    assert (whole == tiled).mean() > 0.9999


# Names


def test_patterns_keep_folders_apart_and_results_are_no_inputs(predict, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("a", "b"):
        Path(place).mkdir()
        Image.fromarray(photos[0]).save(f"{place}/x.png")
        make_video(Path(place, "x.mp4"), moving(2))
    for _ in range(2):
        predict("**/x.*", "--save", "overlay", "-o", "a/out")
        assert names(tmp_path / "a" / "out") == [f"{place}/x.overlay.{end}" for place in "ab" for end in ("mp4", "png")]
    predict(".", "--recursive", "--save", "overlay", "-o", "a/out")
    assert len(names(tmp_path)) == 8


def test_two_videos_of_one_name_are_refused(predict, clip, tmp_path):
    make_video(tmp_path / "clip.mkv", moving(2), container="matroska")
    assert "would make the same files" in predict(tmp_path, "-o", tmp_path / "out", code=6).err


def test_a_result_never_replaces_an_input(predict, clip, tmp_path):
    shutil.copy(clip, tmp_path / "clip.labels.mp4")
    before = clip.read_bytes()
    assert "would replace an input" in predict(tmp_path, "-o", tmp_path, code=6).err
    assert (tmp_path / "clip.labels.mp4").read_bytes() == before


@pytest.mark.parametrize("name", ["-x.mp4", "a b.mp4", os.fsdecode(b"\xff.mp4")])
def test_odd_names(predict, clip, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip.rename(name)
    report = predict("--save", "labels", "-o", "out", "--json", "--", name)
    assert json.loads(report.out)["frames"] == 12
    assert names(Path("out")) == [f"{name.removesuffix('.mp4')}.labels.mp4"]


# Damage


def test_damage_stops_it_with_file_and_frame_and_leaves_no_file(predict, clip, tmp_path):
    bad = make_video(tmp_path / "bad.mp4", moving(20), spoiled=[7], options={"g": "1"})
    said = predict(clip, bad, "-o", tmp_path / "out", code=6).err
    error = next(line for line in said.splitlines() if line.startswith("error: "))
    assert f"{bad} is damaged near frame " in error
    assert error.endswith("fix: --on-error skip keeps what can be read")
    assert names(tmp_path / "out") == ["clip.labels.mp4", "clip.overlay.mp4"]


def test_damaged_frames_are_skipped_counted_and_exit_6(predict, clip, tmp_path):
    bad = make_video(tmp_path / "bad.mp4", moving(20), spoiled=[7, 9], options={"g": "1"})
    (tmp_path / "none.mp4").write_text("no video")
    skip = ("--on-error", "skip", "--save", "labels", "-o", tmp_path / "out", "--json")
    said = predict(bad, tmp_path / "none.mp4", clip, *skip, code=6)
    report = json.loads(said.out)
    assert [(video["frames"], video["damaged"]) for video in report["videos"]] == [(18, 2), (12, 0)]
    assert [Path(each["file"]).name for each in report["failed"]] == ["none.mp4", "bad.mp4"]
    assert "2 such in all" in report["failed"][1]["error"]
    assert "error: 2 of 3 files could not be labelled in full; got " in said.err
    times = read_back(tmp_path / "out" / "bad.labels.mp4", "gray")[1]
    assert times == [index * STEP * TICK for index in range(20) if index not in (7, 9)]


def test_a_truncated_video_is_an_error_or_kept_as_far_as_it_goes(predict, tmp_path):
    clip = make_video(tmp_path / "a.mkv", moving(60), container="matroska")
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    said = predict(clip, "-o", tmp_path / "out", code=6).err
    assert "a.mkv ends early; got " in said
    assert not (tmp_path / "out").exists()
    predict(clip, "--on-error", "skip", "--save", "labels", "-o", tmp_path / "out", code=6)
    assert 0 < len(read_back(tmp_path / "out" / "a.labels.mp4", "gray")[0]) < 60


def test_a_video_that_does_not_fit_the_engine(tmp_path, checkpoint_file, clip, call):
    call("export", "--weights", checkpoint_file("fcn8s"), "--shape", "40x40", "-o", tmp_path / "fixed.onnx")
    command = ("predict", tmp_path / "fixed.onnx", clip, "-o", tmp_path / "out")
    assert f"error: {clip}: input image has the wrong shape; got [1, 3, 48, 64]" in call(*command, code=6).err
    said = call(*command, "--on-error", "skip", code=6).err
    assert f"1 of 1 files could not be labelled; got {clip}: input image has the wrong shape" in said
    assert not names(tmp_path / "out") if (tmp_path / "out").exists() else True


@pytest.mark.parametrize("every", [7_000_000, 2**31, 10**22])
def test_of_every_so_many_frames_one_is_taken_however_many_they_are(predict, clip, tmp_path, every):
    predict(clip, "--every", every, "--max-frames", every, "-o", tmp_path / "out", "--batch", every)
    assert read_back(tmp_path / "out" / "clip.labels.mp4", "gray")[1] == [0]
    assert len(read_back(tmp_path / "out" / "clip.overlay.mp4")[0]) == 1


def test_a_video_with_too_many_pixels_can_be_skipped(predict, clip, tmp_path):
    make_video(tmp_path / "big.mp4", moving(2, (96, 128)))
    options = ("--max-pixels", 48 * 64, "--save", "labels", "-o", tmp_path / "out")
    said = predict(tmp_path / "big.mp4", clip, *options, "--on-error", "skip", code=6)
    assert "error: 1 of 2 files could not be labelled; got " in said.err
    assert "big.mp4 has too many pixels; got 12,288 pixels" in said.err
    assert names(tmp_path / "out") == ["clip.labels.mp4"]
    assert "error: " in predict(tmp_path / "big.mp4", clip, *options, code=6).err


def test_a_full_disk_stops_it_even_if_damage_is_skipped(predict, clip, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fcn_deploy.files.os.fsync", full)
    said = predict(clip, "--on-error", "skip", "-o", tmp_path / "out", code=6).err
    assert "error: cannot write " in said
    assert not (tmp_path / "out").exists()


# Runs that are ended


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_killed_half_way_leaves_no_file_or_the_old_one(exported, tmp_path, number, code):
    clip = make_video(tmp_path / "clip.mp4", moving(300, (240, 320)))
    out = tmp_path / "out"
    out.mkdir()
    (out / "clip.labels.mp4").write_bytes(b"old")
    with started("predict", exported("fcn8s"), clip, "-o", out, "--threads", "1") as process:
        wait_for(lambda: any(path.stat().st_size for path in out.glob(".*.tmp")))
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == code, said
    assert (out / "clip.labels.mp4").read_bytes() == b"old"
    left = [name for name in names(out) if not name.startswith(".")]
    assert left == ["clip.labels.mp4"]
    if number != signal.SIGKILL:
        assert names(out) == left
        assert "nothing is left half written" in said


# In Python, and at length


def test_python_does_the_same(exported, clip, tmp_path):
    found = fcn_deploy.predict(str(exported("fcn8s")), clip, tmp_path / "out", save=("panel",), every=2, batch=2)
    assert (found.images, found.frames, found.videos[0].frames) == (0, 6, 6)
    assert found.files == (tmp_path / "out" / "clip.panel.mp4",)
    assert found.speed.frames == 6
    assert repr(found).endswith("0 images, 1 videos, 6 frames, 1 files)")


@pytest.mark.slow
def test_two_hundred_frames_of_demo_scenes_go_in_and_come_out(tmp_path, call):
    model, clip, out = tmp_path / "net.onnx", tmp_path / "street.mp4", tmp_path / "out"
    call("export", "--weights", checkpoint_path(), "-o", model)
    scenes = [make_scene(seed, (96, 128)) for seed in EVALUATION_SEEDS[:200]]
    times = [index * STEP + 900 * (index % 4) for index in range(200)]
    make_video(clip, [scene.image for scene in scenes], times=times)
    report = json.loads(call("predict", model, clip, "--save", "labels,overlay,panel", "-o", out, "--json").out)
    assert report["frames"] == 200
    labels, shown = read_back(out / "street.labels.mp4", "gray")
    assert shown == [time * TICK for time in times]
    frames, _ = read_back(clip)
    with Segmenter(model) as segmenter:
        for frame, found in zip(frames, labels, strict=True):
            np.testing.assert_array_equal(found, segmenter(frame))
    truth = np.stack([scene.labels for scene in scenes])
    known = truth != 255
    assert (labels == truth)[known].mean() > 0.8  # of compressed frames; the net has seen none such
    for kind in ("overlay", "panel"):
        assert read_back(out / f"street.{kind}.mp4")[1] == shown
