"""Cameras and RTSP streams, read with PyAV."""

from __future__ import annotations

import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fcn_deploy.data.pyav import load_av, open_container, reason
from fcn_deploy.data.video import Video
from fcn_deploy.errors import InputError, UsageError

_CAMERA = "camera:"
_SCHEMES = ("rtsp://", "rtsps://")
# Seconds to wait for an answer, and for the next frame.
TIMEOUT = 10.0
# Over TCP no packet is lost, and firewalls let it pass. What an address may lead to is RTSP alone.
_RTSP = {"rtsp_transport": "tcp", "protocol_whitelist": "rtsp,rtsps,rtp,tcp,tls,udp,crypto"}


def is_address(text: object) -> bool:
    """Returns whether a text names a camera or a stream: `camera:0`, or what begins with `rtsp://` or `rtsps://`."""
    # Schemes are the same in capitals, by RFC 3986.
    return isinstance(text, str) and (text.startswith(_CAMERA) or text.lower().startswith(_SCHEMES))


def check_address(address: str) -> None:
    """Checks an address before it is opened.

    Raises:
        UsageError: It is no address of a camera or a stream.
    """
    if address.startswith(_CAMERA):
        if not re.fullmatch(r"\d{1,3}", address.removeprefix(_CAMERA), re.ASCII):
            raise UsageError("bad camera", got=repr(address), expected="camera:0, camera:1, ...")
        if sys.platform != "linux":
            raise UsageError("cameras are read on Linux only", got=address, fix="name a video, or an RTSP stream")
        return
    try:
        parts = urlsplit(address)
        known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # the port is no number, or a bracket is missing
        known = False
    if not known:
        raise UsageError("bad address", got=repr(public_name(address)), expected="rtsp://HOST/PATH")


def public_name(address: str) -> str:
    """Returns an address as it may be shown and logged: without user, password and query, which may hold a key."""
    return re.sub(r"//.*@", "//", address, count=1).partition("?")[0]


def file_stem(address: str) -> str:
    """Returns what files of a camera or a stream are called: `camera_0`, `cam.local_8554_street`."""
    name = public_name(address).partition("://")[2] or address
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._") or "stream"


def open_live(address: str) -> Video:
    """Opens a camera or a stream.

    Args:
        address: As `is_address` says.

    Raises:
        DependencyError: PyAV is missing.
        InputError: There is no such camera, or no answer within ten seconds.
        UsageError: It is no address of a camera or a stream.
    """
    check_address(address)
    av, name = load_av(), public_name(address)
    with ExitStack() as stack:
        begin = time.monotonic()
        try:
            container = stack.enter_context(_opened(address))
        except (av.FFmpegError, OSError) as error:
            # FFmpeg has no error of its own for a connection that was given up.
            waited = time.monotonic() - begin >= TIMEOUT
            got = f"no answer within {TIMEOUT:g} s" if waited else reason(error)
            # Not `from error`, which has the whole address.
            raise InputError(f"cannot read {name}", got=got, fix=_advice(address)) from None
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None:
            raise InputError(f"{name} has no video")
        return Video(name, None, stream, stack.pop_all())


def _opened(address: str) -> Any:
    if address.startswith(_CAMERA):
        device = Path("/dev", f"video{int(address.removeprefix(_CAMERA))}")
        if not device.exists():
            raise InputError(f"there is no {address}", got=f"no {device}", fix=_advice(address))
        return open_container(str(device), format="v4l2", timeout=TIMEOUT)
    return open_container(address, format="rtsp", options=_RTSP, timeout=TIMEOUT)


def _advice(address: str) -> str:
    if not address.startswith(_CAMERA):
        return "check address, user and password, and that the camera is switched on"
    cameras = sorted(Path("/dev").glob("video*"))
    known = ", ".join(f"{_CAMERA}{path.name.removeprefix('video')}" for path in cameras)
    return f"this machine has {known}" if known else "this machine has no camera"
