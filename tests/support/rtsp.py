"""An RTSP server of one stream and one client: H.264 in RTP (RFC 6184) over the connection itself (RFC 2326, 10.12)."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

SDP = "\r\n".join(
    [
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=test",
        "t=0 0",
        "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=0",
        "a=control:track",
        "",
    ]
)


def units(pictures: list[NDArray[np.uint8]]) -> list[list[bytes]]:
    """Returns the NAL units of each picture."""
    import av

    context = av.CodecContext.create("libx264", "w")
    context.height, context.width = pictures[0].shape[:2]
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, 30), Fraction(30)
    context.options = {"bf": "0", "g": "5", "tune": "zerolatency", "x264-params": "repeat-headers=1"}
    packets = []
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, 30)
        packets += context.encode(frame)
    packets += context.encode(None)
    return [[unit for unit in re.split(b"\0\0\0?\1", bytes(packet)) if unit] for packet in packets]


@contextmanager
def serving(pictures: list[NDArray[np.uint8]], *, answers: bool = True, closes: bool = True) -> Iterator[str]:
    """Serves pictures, 30 a second, and yields the address.

    Args:
        pictures: uint8 [H, W, 3] of one size.
        answers: Whether it says anything at all.
        closes: Whether it closes the connection after the last picture; else it falls silent.
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        frames = units(pictures) if answers else []
        thread = threading.Thread(target=_serve, args=(server, frames, answers, closes, over))
        thread.start()
        try:
            yield f"rtsp://user:secret@127.0.0.1:{server.getsockname()[1]}/street?key=hidden"
        finally:
            over.set()
            thread.join()


def _serve(
    server: socket.socket, frames: list[list[bytes]], answers: bool, closes: bool, over: threading.Event
) -> None:
    client = _accepted(server, over)
    if client is None:
        return
    with client:
        if not answers:
            over.wait()
            return
        client.settimeout(5)
        try:
            _converse(client)
            _send(client, frames)
        except OSError:  # the client has gone
            return
        if not closes:
            over.wait()


def _accepted(server: socket.socket, over: threading.Event) -> socket.socket | None:
    """Waits for a client; for how long a test takes to get there does not matter."""
    server.settimeout(0.1)
    while not over.is_set():
        with suppress(TimeoutError):
            return server.accept()[0]
    return None


def _converse(client: socket.socket) -> None:
    """Answers requests up to PLAY."""
    waiting = b""
    while True:
        while b"\r\n\r\n" not in waiting:
            received = client.recv(4096)
            if not received:
                raise OSError
            waiting += received
        request, _, waiting = waiting.partition(b"\r\n\r\n")
        method, address = request.decode().split()[:2]
        number = re.search(rb"CSeq: (\d+)", request)[1].decode()
        lines, body = [f"CSeq: {number}", "Session: 1"], ""
        if method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        if method == "DESCRIBE":
            body = SDP
            lines += ["Content-Type: application/sdp", f"Content-Base: {address}/", f"Content-Length: {len(body)}"]
        if method == "SETUP":
            lines.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        client.sendall("\r\n".join(["RTSP/1.0 200 OK", *lines, "", body]).encode())
        if method == "PLAY":
            return


def _send(client: socket.socket, frames: list[list[bytes]]) -> None:
    sequence = 0
    for index, frame in enumerate(frames):
        for unit in frame:
            last = unit is frame[-1]
            header = struct.pack(">BBHII", 0x80, 96 | (0x80 if last else 0), sequence, 1_000_000 + 3_000 * index, 7)
            client.sendall(struct.pack(">cBH", b"$", 0, len(header) + len(unit)) + header + unit)
            sequence += 1
        time.sleep(1 / 30)
