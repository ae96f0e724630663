import json
import shutil
import signal
import time

import pytest

from fcn_deploy.data import live
from tests.support.rtsp import serving
from tests.support.runs import labelled, names, started, wait_for
from tests.support.videos import make_video, moving, read_back

pytest.importorskip("av")


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "clip.mp4", moving(12))


def test_a_stream_is_labelled_until_it_ends(predict, exported, tmp_path):
    pictures = moving(12)
    with serving(pictures) as address:
        said = predict(address, "--save", "labels", "-o", tmp_path / "out", "--json")
    (video,) = json.loads(said.out)["videos"]
    assert video["frames"] + video["left_out"] == 12
    assert "secret" not in said.out + said.err
    (name,) = names(tmp_path / "out")
    assert name.startswith("127.0.0.1_")
    labels, times = read_back(tmp_path / "out" / name, "gray")
    assert len(labels) == video["frames"]
    assert {time * 30 for time in times} <= set(range(12))
    if not video["left_out"]:
        assert (labels == labelled(exported("fcn8s"), pictures)[0]).mean() > 0.5


def test_a_stream_that_is_faster_than_the_engine_loses_frames_and_says_so(predict, tmp_path, monkeypatch):
    from fcn_deploy.workflows.labelling import Labelling

    fast = Labelling.labels

    def slow(*arguments):
        time.sleep(0.2)
        return fast(*arguments)

    monkeypatch.setattr(Labelling, "labels", slow)
    with serving(moving(60)) as address:
        said = predict(address, "--save", "labels", "-o", tmp_path / "out", "--json")
    (video,) = json.loads(said.out)["videos"]
    assert video["left_out"] > 0
    assert video["frames"] + video["left_out"] == 60
    assert f": {video['left_out']} frames came while the engine was busy, and are left out" in said.err


def test_a_stream_that_breaks_off_leaves_what_it_gave(predict, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "TIMEOUT", 1.0)
    with serving(moving(8), closes=False) as address:
        said = predict(address, "--save", "labels", "-o", tmp_path / "out", code=6)
    assert "broke off after 8 frames" in said.err
    (name,) = names(tmp_path / "out")
    assert 0 < len(read_back(tmp_path / "out" / name, "gray")[0]) <= 8


def test_a_stream_ends_after_the_frames_that_were_asked_for(predict, tmp_path):
    with serving(moving(60)) as address:
        said = predict(address, "--max-frames", 5, "--save", "labels", "-o", tmp_path / "out", "--json")
    assert json.loads(said.out)["frames"] == 5


def test_no_camera_no_answer_and_no_screen(predict, clip, tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "there is no camera:99; got no /dev/video99" in predict("camera:99", "-o", tmp_path / "out", code=6).err
    said = predict("rtsp://user:secret@127.0.0.1:1/x", "-o", tmp_path / "out", code=6).err
    assert "cannot read rtsp://127.0.0.1:1/x; got Connection refused" in said
    assert "there is no screen for --display" in predict(clip, "--display", "-o", tmp_path / "out", code=7).err
    assert not (tmp_path / "out").exists()


class Screen:
    """A window whose user closes it after a while."""

    def __init__(self, title):
        self.shown, self.closed = [], False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True

    def show(self, picture):
        self.shown.append(picture)
        self.closed = len(self.shown) >= 4


def test_closing_the_window_ends_it_and_what_was_labelled_stays(predict, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("fcn_deploy.workflows.predicting.Window", Screen)
    other = shutil.copy(clip, tmp_path / "other.mp4")
    said = predict(clip, other, "--display", "--save", "labels", "-o", tmp_path / "out", "--json")
    assert json.loads(said.out)["frames"] == 4
    assert len(read_back(tmp_path / "out" / "clip.labels.mp4", "gray")[0]) == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stream_that_is_interrupted_is_written_and_plays(exported, tmp_path, number, code):
    out = tmp_path / "out"
    with (
        serving(moving(1200)) as address,
        started("predict", exported("fcn8s"), address, "--save", "labels", "-o", out) as process,
    ):
        wait_for(lambda: any(path.stat().st_size > 1000 for path in out.glob(".*.tmp")))
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == code, said
    assert "what was labelled until now is written" in said
    (name,) = names(out)
    assert 0 < len(read_back(out / name, "gray")[0]) < 1200
