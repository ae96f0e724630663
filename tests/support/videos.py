"""Makes video files for tests with PyAV, in every shape that cameras and phones give."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TICK = Fraction(1, 90_000)
STEP = 3_000  # 30 frames a second

Pictures = Sequence[NDArray[Any]]


def moving(count: int, size: tuple[int, int] = (48, 64), seed: int = 0) -> list[NDArray[np.uint8]]:
    """A window that moves over a smooth picture, so that no two frames are the same."""
    height, width = size
    cells = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(cells).resize((width + count, height + count), Image.Resampling.BICUBIC))
    return [np.ascontiguousarray(wide[i : i + height, i : i + width]) for i in range(count)]


def noisy(count: int, size: tuple[int, int] = (48, 64)) -> list[NDArray[np.uint8]]:
    """Noise, of which a file is hardly anything but coded frames."""
    random = np.random.default_rng(0)
    return list(random.integers(0, 256, (count, *size, 3), dtype=np.uint8))


def make_video(
    path: Path,
    pictures: Pictures,
    *,
    times: Iterable[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str = "mp4",
    time_base: Fraction = TICK,
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    sound: bool = False,
    aspect: Fraction | None = None,
    spoiled: Collection[int] = (),
    index_first: bool = False,
) -> Path:
    """Writes pictures, uint8 [H, W, 3] or [H, W], each shown at its time in units of the time base.

    Players turn it clockwise by `rotation` degrees. The coded frames of the numbers in `spoiled` are replaced by bytes
    that mean nothing.
    """
    import av

    height, width = pictures[0].shape[:2]
    step = int(Fraction(1, 30) / time_base)
    shown = list(times) if times is not None else [index * step for index in range(len(pictures))]
    flags = {"movflags": "faststart"} if index_first else {}
    with path.open("wb+") as file, av.open(file, "w", format=container, options=flags) as output:
        wanted = {"bf": "0", "crf": "12"} if codec == "libx264" else {}
        stream = output.add_stream(codec, rate=30, options=wanted | (options or {}))
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        stream.codec_context.time_base = time_base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = output.add_stream("aac", rate=48_000, layout="mono") if sound else None
        packets: list[Any] = []
        for picture, time in zip(pictures, shown, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="gray" if picture.ndim == 2 else "rgb24")
            frame.pts, frame.time_base = time, time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        output.mux([_spoiled(each) if index in spoiled else each for index, each in enumerate(packets)])
        if audio is not None:
            quiet = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            quiet.sample_rate = 48_000
            output.mux(audio.encode(quiet))
            output.mux(audio.encode(None))
    if rotation is not None:
        _turn(path, rotation)
    return path


def read_back(path: Path, format: str = "rgb24") -> tuple[NDArray[Any], list[Fraction]]:
    """Returns the frames of a video and when each is shown, in seconds, as PyAV reads them."""
    import av

    with path.open("rb") as file, av.open(file) as video:
        frames = list(video.decode(video=0))
        return np.stack([frame.to_ndarray(format=format) for frame in frames]), [
            frame.pts * frame.time_base for frame in frames
        ]


def _spoiled(packet: Any) -> Any:
    import av

    other = av.Packet(b"\0\0\0\1\x65" + 100 * b"\xff")  # begins as a key frame of H.264 does
    for name in ("stream", "pts", "dts", "duration", "time_base"):
        setattr(other, name, getattr(packet, name))
    return other


def _turn(path: Path, rotation: int) -> None:
    """Writes the matrix of the header of the track, as a phone does (QuickTime File Format, track header atoms)."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), -90: (0, -1)}[rotation]
    content = bytearray(path.read_bytes())
    begin = content.index(b"tkhd") + 4 + 40
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    content[begin : begin + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
