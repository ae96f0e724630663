import errno
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_deploy.errors import InputError
from fcn_deploy.reporting.video import VideoWriter
from tests.support.videos import TICK, moving, noisy, read_back

av = pytest.importorskip("av")

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 64, 128), (70, 130, 180), (244, 35, 232), (0, 0, 0)]


def write(path, pictures, times=None, **options):
    with VideoWriter(path, options.pop("time_base", TICK), options.pop("rate", Fraction(30)), **options) as writer:
        for index, picture in enumerate(pictures):
            pts = 3000 * index if times is None else times[index]
            writer.write(picture, pts, 3000)
    return path


@settings(deadline=None)
@given(
    steps=st.lists(st.integers(1, 200_000), min_size=1, max_size=10), denominator=st.sampled_from([25, 1000, 90_000])
)
def test_times_are_those_that_were_given(tmp_path_factory, steps, denominator):
    base = Fraction(1, denominator)
    times = [sum(steps[:index]) for index in range(len(steps))]
    folder = tmp_path_factory.mktemp("video")
    for name, picture in (("color", np.full((16, 16, 3), 90, np.uint8)), ("labels", np.full((16, 16), 3, np.uint8))):
        path = write(folder / name, [picture] * len(times), times, time_base=base)
        assert read_back(path)[1] == [time * base for time in times]


@pytest.mark.parametrize("base", [Fraction(1001, 30_000), Fraction(1, 1_200_000), Fraction(1, 1_000_000)])
def test_time_bases_of_cameras_and_films_are_exact(tmp_path, base):
    times = [0, 1, 2, 5]
    assert read_back(write(tmp_path / "a.mp4", moving(4), times, time_base=base))[1] == [time * base for time in times]


def test_it_lasts_as_long_as_its_frames(tmp_path):
    path = write(tmp_path / "a.mp4", moving(4), [0, 3000, 30_000, 33_000])
    with av.open(str(path)) as video:
        assert video.streams.video[0].duration * video.streams.video[0].time_base == 36_000 * TICK


@pytest.mark.parametrize("color", COLORS)
def test_colours_are_kept_to_three_levels(tmp_path, color):
    frames, _ = read_back(write(tmp_path / "a.mp4", [np.full((32, 48, 3), color, np.uint8)] * 3))
    assert np.abs(frames.astype(int) - color).max() <= 3


def test_players_are_told_what_the_colours_mean(tmp_path):
    path = write(tmp_path / "a.mp4", moving(3), pixel_aspect=Fraction(4, 3))
    with av.open(str(path)) as video:
        (stream,) = video.streams.video
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.has_b_frames) == ("h264", "yuv420p", 0)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert stream.sample_aspect_ratio == Fraction(4, 3)
        assert stream.average_rate == 30


@pytest.mark.parametrize(("dtype", "format"), [(np.uint8, "gray"), (np.uint16, "gray16le")])
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
def test_labels_keep_every_value(tmp_path, dtype, format, size):
    labels = list(np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (5, *size), dtype=dtype))
    path = write(tmp_path / "a.mp4", labels)
    np.testing.assert_array_equal(read_back(path, format)[0], labels)


def test_opencv_reads_the_same_labels(tmp_path):
    cv2 = pytest.importorskip("cv2")
    labels = list(np.random.default_rng(0).integers(0, 256, (5, 48, 64), dtype=np.uint8))
    video = cv2.VideoCapture(str(write(tmp_path / "a.mp4", labels)))
    for expected in labels:
        np.testing.assert_array_equal(video.read()[1][..., 0], expected)


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (1, 1), (2, 2)])
def test_odd_sizes_stay_and_are_told(tmp_path, size, caplog):
    path = write(tmp_path / "a.mp4", noisy(3, size))
    assert read_back(path)[0].shape == (3, *size, 3)
    assert ("which not every player shows" in caplog.text) == (size != (2, 2))


def test_another_size_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(InputError, match=r"holds frames of one size; got 5x6; expected 48x64"):
        write(tmp_path / "a.mp4", [*moving(1), np.zeros((5, 6, 3), np.uint8)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("no")])
def test_what_breaks_off_leaves_what_was_there(tmp_path, error):
    (tmp_path / "old.mp4").write_bytes(b"old")

    def broken(path):
        with VideoWriter(path, TICK) as writer:
            for index, picture in enumerate(moving(30)):
                writer.write(picture, index)
            assert len(list(tmp_path.glob(".*.tmp"))) == 1
            raise error

    for name in ("old.mp4", "new.mp4"):
        with pytest.raises(type(error)):
            broken(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == b"old"


def test_no_frames_make_no_file(tmp_path):
    with pytest.raises(InputError, match="no frames"), VideoWriter(tmp_path / "a.mp4", TICK):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fcn_deploy.files.os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*a\.mp4; got No space left on device"):
        write(tmp_path / "a.mp4", moving(3))
    assert list(tmp_path.iterdir()) == []


def test_times_that_go_back_are_an_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*a\.mp4"):
        write(tmp_path / "a.mp4", moving(3), [0, 3000, 1000])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no folder"), VideoWriter(tmp_path / "none" / "a.mp4", TICK):
        pass
