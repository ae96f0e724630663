import sys
import time

import numpy as np
import pytest

from fcn_deploy.data import live
from fcn_deploy.data.frames import Frame
from fcn_deploy.data.live import check_address, file_stem, is_address, open_live, public_name
from fcn_deploy.errors import InputError, UsageError
from tests.support.rtsp import serving
from tests.support.videos import moving

pytest.importorskip("av")


@pytest.mark.parametrize("text", ["camera:0", "camera:x", "rtsp://host/a", "rtsps://host", "RTSP://host/a"])
def test_addresses_begin_as_such(text):
    assert is_address(text)


@pytest.mark.parametrize(
    "text", ["0", "camera", "./camera:0", "http://host/a", "rtsp:/host", "a/rtsp://b", b"camera:0"]
)
def test_everything_else_is_a_path(text):
    assert not is_address(text)


@pytest.mark.parametrize("text", ["camera:", "camera:x", "camera:-1", "camera:1234", "camera:0 ", "camera:\u0661"])
def test_cameras_have_numbers(text):
    with pytest.raises(UsageError, match=r"bad camera; got .*; expected camera:0, camera:1"):
        check_address(text)


@pytest.mark.parametrize("text", ["rtsp://", "rtsp:///a", "rtsp://:80/a", "rtsp://host:x/a", "rtsp://[host/a"])
def test_a_stream_has_a_host(text):
    with pytest.raises(UsageError, match=r"bad address; got .*; expected rtsp://HOST/PATH"):
        check_address(text)


@pytest.mark.parametrize(
    ("address", "shown", "stem"),
    [
        ("camera:0", "camera:0", "camera_0"),
        ("rtsp://cam.local/street", "rtsp://cam.local/street", "cam.local_street"),
        ("rtsp://a:b@cam:8554/x/y?key=1", "rtsp://cam:8554/x/y", "cam_8554_x_y"),
        ("rtsp://a:b@c@cam/x", "rtsp://cam/x", "cam_x"),
        ("rtsp://a:b/c@cam/x", "rtsp://cam/x", "cam_x"),
        ("rtsp://[::1]/../..", "rtsp://[::1]/../..", "1_.._"),
    ],
)
def test_names_hold_no_password_and_are_those_of_one_file(address, shown, stem):
    assert public_name(address) == shown
    assert file_stem(address).startswith(stem.rstrip("._"))
    assert "/" not in file_stem(address)


def test_a_bad_address_shows_no_password():
    with pytest.raises(UsageError) as caught:
        check_address("rtsp://user:se/cret@host:x/a")
    assert "cret" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="cameras are read on Linux only")
def test_a_camera_that_is_not_there_is_an_input_error():
    with pytest.raises(InputError, match=r"there is no camera:99; got no /dev/video99; fix: this machine has "):
        open_live("camera:99")


def test_elsewhere_cameras_are_refused(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UsageError, match="cameras are read on Linux only"):
        check_address("camera:0")


def test_frames_of_a_stream_come_with_their_times():
    pictures = moving(12)
    with serving(pictures) as address, open_live(address) as stream:
        assert (stream.live, stream.path, stream.total) == (True, None, None)
        assert "secret" not in stream.name
        assert "hidden" not in stream.name
        frames = list(stream.frames())
    assert all(isinstance(frame, Frame) for frame in frames)
    assert len(frames) == 12
    assert [(frame.pts - frames[0].pts) * stream.time_base * 30 for frame in frames] == list(range(12))
    assert (
        max(np.abs(frame.image.astype(int) - picture).mean() for frame, picture in zip(frames, pictures, strict=True))
        < 12
    )


def test_a_stream_that_falls_silent_is_an_error_after_its_frames(monkeypatch):
    monkeypatch.setattr(live, "TIMEOUT", 1.0)
    with serving(moving(6), closes=False) as address, open_live(address) as stream:
        *frames, last = stream.frames()
    assert len(frames) == 6
    assert str(last) == f"{stream.name} broke off after 6 frames; got no further frame in time"


def test_nobody_answers_within_bounded_time(monkeypatch):
    monkeypatch.setattr(live, "TIMEOUT", 0.5)
    with serving([], answers=False) as address:
        begin = time.monotonic()
        with pytest.raises(InputError, match=r"cannot read rtsp://127.*; got no answer within 0.5 s; fix: ") as caught:
            open_live(address)
        assert time.monotonic() - begin < 3
    assert "secret" not in str(caught.value)


def test_a_refused_connection_says_so():
    with pytest.raises(InputError, match=r"cannot read rtsp://127\.0\.0\.1:1/x; got Connection refused"):
        open_live("rtsp://user:secret@127.0.0.1:1/x")
