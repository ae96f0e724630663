import logging
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_deploy.data.frames import Frame
from fcn_deploy.data.video import Video, is_video
from fcn_deploy.errors import DependencyError, InputError
from tests.support.videos import STEP, TICK, make_video, moving, noisy

pytest.importorskip("av")


def read(path, **options):
    """The frames of a video, and what it says instead of the others."""
    with Video.open(path, **options) as video:
        found = list(video.frames())
        frames = [each for each in found if isinstance(each, Frame)]
        return video, frames, [str(each) for each in found if isinstance(each, InputError)]


def closeness(frame, picture):
    return np.abs(frame.image.astype(int) - picture).mean()


def test_frames_come_in_order_with_their_times_and_colours(tmp_path):
    pictures = moving(8)
    video, frames, errors = read(make_video(tmp_path / "a.mp4", pictures))
    assert errors == []
    assert [frame.index for frame in frames] == list(range(8))
    assert [frame.pts * video.time_base for frame in frames] == [Fraction(index, 30) for index in range(8)]
    assert {frame.duration * video.time_base for frame in frames} == {Fraction(1, 30)}
    assert (video.total, video.rate, video.live, video.pixel_aspect) == (8, 30, False, 1)
    assert frames[0].image.dtype == np.uint8
    assert max(closeness(frame, picture) for frame, picture in zip(frames, pictures, strict=True)) < 12


@settings(deadline=None)
@given(steps=st.lists(st.integers(1, 90_000), min_size=1, max_size=8), start=st.integers(0, 10**6))
def test_variable_frame_rates_keep_every_time(tmp_path_factory, steps, start):
    times = [start + sum(steps[:index]) for index in range(len(steps))]
    pictures = [np.full((16, 16, 3), 90, np.uint8)] * len(times)
    path = make_video(tmp_path_factory.mktemp("video") / "a.mp4", pictures, times=times)
    video, frames, errors = read(path)
    assert [(frame.pts - frames[0].pts) * video.time_base for frame in frames] == [
        (time - times[0]) * TICK for time in times
    ]
    assert errors == []


@pytest.mark.parametrize(
    ("container", "codec", "pix_fmt"),
    [
        ("matroska", "libx264", "yuv420p"),
        ("mpegts", "libx264", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("webm", "libvpx-vp9", "yuva420p"),
        ("mov", "libx264", "yuv420p10le"),
        ("mp4", "libx264", "gray"),
        ("mp4", "libx264", "yuv444p"),
    ],
)
def test_other_containers_alpha_ten_bits_and_grey_are_read(tmp_path, container, codec, pix_fmt):
    base = Fraction(1, 30) if container == "avi" else TICK
    grey = [np.repeat(picture[..., :1], 3, axis=-1) for picture in moving(6)]
    path = make_video(tmp_path / "a", grey, container=container, codec=codec, pix_fmt=pix_fmt, time_base=base)
    _, frames, errors = read(path)
    assert errors == []
    assert len(frames) == 6
    assert max(closeness(frame, picture) for frame, picture in zip(frames, grey, strict=True)) < 20


def test_interlaced_frames_are_read(tmp_path):
    path = make_video(tmp_path / "a.mp4", moving(6), options={"flags": "+ilme+ildct", "x264-params": "tff=1"})
    assert len(read(path)[1]) == 6


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (1, 2)])
def test_odd_sizes_stay(tmp_path, size):
    path = make_video(tmp_path / "a.mp4", moving(3, size), pix_fmt="yuv444p")
    assert {frame.image.shape[:2] for frame in read(path)[1]} == {size}


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_what_a_phone_turned_is_upright(tmp_path, rotation):
    picture = moving(1)[0]
    video, frames, _ = read(
        make_video(tmp_path / "a.mp4", [picture] * 3, rotation=rotation, aspect=Fraction(4, 3), options={"crf": "1"})
    )
    assert frames[0].image.shape == ((64, 48, 3) if rotation % 180 else (48, 64, 3))
    assert frames[0].image.flags.c_contiguous
    assert closeness(frames[0], np.rot90(picture, -rotation // 90)) < 12
    assert video.pixel_aspect == (Fraction(3, 4) if rotation % 180 else Fraction(4, 3))


def test_its_sound_is_known_of(tmp_path):
    for sound in (True, False):
        with Video.open(make_video(tmp_path / "a.mp4", moving(3), sound=sound)) as video:
            assert video.has_audio == sound


def test_raw_streams_have_no_times_and_get_some_with_a_warning(tmp_path, caplog):
    path = make_video(tmp_path / "a.h264", moving(4), container="h264")
    with caplog.at_level(logging.WARNING):
        video, frames, _ = read(path)
    assert [frame.pts * video.time_base for frame in frames] == [Fraction(index, 25) for index in range(4)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} has no times: 25 frames a second are assumed"
    ]


@pytest.mark.parametrize(("container", "name"), [("matroska", "a.mkv"), ("webm", "a.webm"), ("avi", "a.avi")])
def test_a_truncated_video_ends_early_and_says_where(tmp_path, container, name):
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(container, "libx264")
    base = Fraction(1, 30) if container == "avi" else TICK
    path = make_video(tmp_path / name, noisy(60), container=container, codec=codec, time_base=base)
    path.write_bytes(path.read_bytes()[: int(0.5 * path.stat().st_size)])
    _, frames, errors = read(path)
    assert 0 < len(frames) < 60
    assert all(name in error for error in errors)
    assert "ends early; got " in errors[-1] or ("avi" in name and "is damaged near frame" in errors[-1])


def test_a_truncated_video_with_its_index_at_the_front_is_damaged_and_ends_early(tmp_path):
    path = make_video(tmp_path / "a.mp4", noisy(60), index_first=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, frames, errors = read(path)
    assert 20 < len(frames) < 40
    assert len(errors) == 2
    assert "is damaged near frame " in errors[0]
    assert "ends early; got " in errors[1]


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_frame_every_ten_seconds_is_no_early_end(tmp_path, container):
    path = make_video(tmp_path / "a", moving(5), times=[900_000 * index for index in range(5)], container=container)
    video, frames, errors = read(path)
    assert (len(frames), errors) == (5, [])
    assert (frames[-1].pts - frames[0].pts) * video.time_base == 40


def test_a_damaged_frame_is_an_error_in_its_place_and_the_rest_is_read(tmp_path):
    path = make_video(tmp_path / "a.mp4", moving(20), spoiled=[7, 8], options={"g": "1"})
    _, frames, errors = read(path)
    assert len(errors) == 2
    assert f"{path} is damaged near frame " in errors[0]
    assert len(frames) == 18
    times = [frame.pts // STEP for frame in frames]
    assert times == [*range(7), *range(9, 20)]


def test_concealed_errors_are_damage_too(tmp_path):
    path = make_video(tmp_path / "a.avi", noisy(40), container="avi", codec="mpeg4", time_base=Fraction(1, 30))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(255 - byte for byte in content[middle : middle + 300])
    path.write_bytes(content)
    _, frames, errors = read(path)
    assert any("got a frame with errors" in error for error in errors)
    assert len(frames) >= 38


def test_a_video_without_frames_is_an_error(tmp_path):
    path = make_video(tmp_path / "a.mp4", moving(1))
    with Video.open(path) as video:
        video._container = type("Empty", (), {"demux": lambda self, stream: iter(())})()
        assert [str(error) for error in video.frames()] == [f"{path} has no frames; expected at least one"]


def test_a_size_that_changes_is_named_with_its_frame(tmp_path):
    first = make_video(tmp_path / "a.h264", moving(3), container="h264")
    second = make_video(tmp_path / "b.h264", moving(2, (32, 48)), container="h264")
    first.write_bytes(first.read_bytes() + second.read_bytes())
    _, frames, errors = read(first)
    assert len(frames) == 3
    assert "frames of several sizes, from frame 3 on; got 32x48; expected 48x64, as before" in errors[0]


def test_only_videos_are_videos(tmp_path, photos):
    (tmp_path / "notes.txt").write_text("hello\n" * 1000)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nnotes.txt\n")
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile notes.txt\n")
    (tmp_path / "random").write_bytes(np.random.default_rng(0).bytes(10_000))
    (tmp_path / "empty").write_bytes(b"")
    Image.fromarray(photos[0]).save(tmp_path / "a.png")
    if "AVIF" in Image.registered_extensions().values():
        Image.fromarray(photos[0]).save(tmp_path / "a.avif")
    for path in tmp_path.iterdir():
        assert not is_video(path), path
    assert is_video(make_video(tmp_path / "film", moving(2)))


def test_the_suffix_of_a_video_with_other_content_is_an_error(tmp_path):
    path = make_video(tmp_path / "a.mp4", moving(3))
    path.write_bytes(path.read_bytes()[:1000])
    for ask in (is_video, Video.open):
        with pytest.raises(InputError, match=r"a\.mp4 is damaged or not a video; got Invalid data"):
            ask(path)


def test_sound_alone_is_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=48_000, layout="mono")
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        quiet.sample_rate = 48_000
        output.mux(stream.encode(quiet))
        output.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"a\.mp4 is not a video; got .* without a stream of video"):
        is_video(tmp_path / "a.mp4")


def test_frames_above_the_limit_of_pixels_are_refused(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", moving(2))
    with pytest.raises(InputError, match=r"3,072 pixels, 48x64; expected at most 100; fix: raise `max_pixels`"):
        Video.open(path, max_pixels=100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(InputError, match="expected at most 100"):
        Video.open(path)
    assert len(read(path, max_pixels=3_072)[1]) == 2


def test_hdr_is_told(tmp_path, caplog):
    path = make_video(tmp_path / "a.mp4", moving(2), options={"x264-params": "transfer=smpte2084"})
    with caplog.at_level(logging.WARNING):
        read(path)
    assert "high dynamic range" in caplog.text


@pytest.mark.parametrize("name", ["-x.mp4", "a b.mp4", "rtsp:x.mp4", "file:x.mp4", "%d.mp4", os.fsdecode(b"\xff.mp4")])
def test_names_mean_files_whatever_they_look_like(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make_video(Path(name), moving(2))
    assert len(read(Path(name))[1]) == 2


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", moving(2))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(DependencyError, match=r"video needs PyAV; .*fix: .*(video|av)"):
        Video.open(path)


def test_words_that_are_not_utf_8_and_a_duration_that_means_nothing_are_no_obstacle(tmp_path):
    path = make_video(tmp_path / "a.mkv", moving(4), container="matroska")
    content = path.read_bytes()
    assert b"00:00:00.133" in content
    path.write_bytes(content.replace(b"00:00:00.133", b"\xff0:\x0000.1:3"))
    assert len(read(path)[1]) == 4


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "mpegts"])
def test_damage_of_any_kind_is_an_input_error_or_none(tmp_path, container, capfd):
    codec, base = ("mpeg4", Fraction(1, 30)) if container == "avi" else ("libx264", TICK)
    whole = make_video(tmp_path / "whole", moving(6), container=container, codec=codec, time_base=base).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "a"
    for _ in range(150):
        content = bytearray(whole)
        for place in random.integers(0, random.choice([400, len(content)]), random.choice([1, 5, 50])):
            content[place % len(content)] = random.integers(0, 256)
        path.write_bytes(content)
        try:
            read(path)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017 - it may as well be none
    assert capfd.readouterr().err == ""
