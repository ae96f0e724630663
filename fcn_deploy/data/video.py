"""Video files, read with PyAV: frames with their times, upright, damage named."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcn_deploy.data.frames import Frame
from fcn_deploy.data.pyav import CONTAINERS, load_av, open_container, reason
from fcn_deploy.errors import InputError
from fcn_deploy.files import reading

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from typing_extensions import Self

_log = logging.getLogger(__name__)

_LOCAL = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
# Images that are stored in a container of videos; Pillow reads some of them.
_STILL_BRANDS = ("avif", "heic", "heix", "heim", "heis", "mif1")
# What screens of a high dynamic range show: PQ and hybrid log-gamma, by ITU-T H.273.
_HDR = (16, 18)
# Seconds by which a video may end before its stated end: containers count in their own ways what lasts how long.
_EARLY = Fraction(1, 2)
# Containers that state how long the video lasts; others state how long all lasts, sound too.
_OWN_LENGTH = ("mov", "avi", "mpegts")
_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
_DURATION = re.compile(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d{1,12})?)", re.ASCII)  # of Matroska: 00:01:02.345000000
_ANY_RATE = Fraction(25)  # of a stream of bytes without times, as FFmpeg takes it


class _Readable(io.BufferedReader):
    """A file in which a place that does not exist is an answer; PyAV prints exceptions of a file on stderr."""

    def seek(self, target: int, whence: int = 0, /) -> int:
        try:
            return super().seek(target, whence)
        except (OSError, ValueError):
            return -1


class _Broken(str):
    """Why no more can be read."""


class Video:
    """Frames as PyAV decodes them, of a file, a camera or a stream; open for reading once, until its context ends.

    Frames are upright, as the rotation in the file says; alpha is dropped, grey expanded, more than 8 bits scaled.
    Interlaced frames stay as they are stored. See `FrameSource` for the attributes.

    Args:
        name: What messages call it.
        path: The file; None for a camera or a stream, which goes on until somebody stops it.
        stream: Of PyAV.
        opened: Closes what was opened for it.
    """

    def __init__(self, name: str, path: Path | None, stream: VideoStream, opened: ExitStack) -> None:
        self.name, self.path, self.live = name, path, path is None
        self._stream, self._opened = stream, opened
        self._container: Any = stream.container
        self.left_out = 0
        self.time_base = Fraction(stream.time_base or 1 / _ANY_RATE)
        rate = stream.average_rate or stream.guessed_rate
        self.rate = Fraction(rate.numerator, rate.denominator) if rate else None
        seconds = self._seconds()
        estimate = None if seconds is None or self.rate is None else round(seconds * self.rate)
        self.total = stream.frames or estimate or None
        self.pixel_aspect = self._stored_aspect = Fraction(stream.sample_aspect_ratio or 1)
        self._size: tuple[int, int] | None = None  # of frames as they are stored

    @classmethod
    def open(cls, path: Path, *, max_pixels: int | None = None) -> Self:
        """Opens a video file.

        Args:
            path: The file.
            max_pixels: Most pixels that a frame may have; Pillow's limit of 178,956,970 if None.

        Raises:
            DependencyError: PyAV is missing.
            InputError: It is not a video, is damaged at its beginning, or has too many pixels.
        """
        with ExitStack() as stack:
            stream = _stream_of(path, stack)
            _check(path, stream, max_pixels)
            return cls(str(path), path, stream, stack.pop_all())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def has_audio(self) -> bool:
        """Whether there is sound in the file."""
        return bool(self._container.streams.audio)

    def frames(self) -> Iterator[Frame | InputError]:
        """Yields each frame, and an error in the place of each that is damaged or does not fit those before.

        The last error says that the file ends early, or has no frames.
        """
        index, step, last = 0, 0, None
        for decoded in self._decoded():
            found = self._damaged(index, decoded) if isinstance(decoded, str) else self._checked(decoded, index, last)
            yield found
            if isinstance(found, Frame):
                step = found.pts - last.pts if last is not None else 0
                last = found
            index += not isinstance(decoded, str)
        if last is None:
            if not index:
                yield InputError(f"{self.name} has no frames", expected="at least one")
            return
        start = (self._stream.start_time or 0) * self.time_base
        played, stated = (last.pts + last.duration) * self.time_base - start, self._seconds()
        if stated is not None and played < stated - max(_EARLY, 2 * step * self.time_base):
            got = f"{float(played):.1f} s, {index} frames"
            yield InputError(f"{self.name} ends early", got=got, expected=f"{float(stated):.1f} s, as it states")

    def _decoded(self) -> Iterator[VideoFrame | str]:
        """Yields what the decoder gives, and in words what it or the container finds damaged."""
        av = load_av()
        decoder = self._stream.codec_context
        for packet in self._packets():
            try:
                yield from [packet] if isinstance(packet, str) else decoder.decode(packet)
            except av.EOFError:  # it was emptied before
                return
            except av.FFmpegError as error:
                yield reason(error)

    def _packets(self) -> Iterator[Packet[VideoStream] | str | None]:
        """Yields packets; where reading ends too early, None, which empties the decoder, and why."""
        av = load_av()
        try:
            yield from self._container.demux(self._stream)
        except (av.FFmpegError, OSError, IndexError) as error:  # IndexError: of a stream that began later
            yield None
            yield _Broken("no further frame in time" if isinstance(error, av.error.ExitError) else reason(error))

    def _checked(self, decoded: VideoFrame, index: int, last: Frame | None) -> Frame | InputError:
        if decoded.is_corrupt:
            return self._damaged(index, "a frame with errors")
        size = (decoded.height, decoded.width)
        if self._size not in (None, size):
            return InputError(
                f"{self.name} has frames of several sizes, from frame {index} on",
                got="{}x{}".format(*size),
                expected="{}x{}, as before".format(*(self._size or ())),
                fix="cut it there, and predict on the parts",
            )
        try:
            image = self._upright(decoded)
        except (load_av().FFmpegError, OSError, ValueError) as error:  # pixels of a kind that cannot be converted
            return self._damaged(index, reason(error))
        frame = Frame(index, self._time(decoded, index), decoded.duration or 0, image)
        if last is not None and frame.pts <= last.pts:
            return InputError(f"{self.name}: the time of frame {index} is not after that of the frame before")
        self._size = size
        return frame

    def _damaged(self, index: int, why: str) -> InputError:
        if isinstance(why, _Broken) and self.live:
            return InputError(f"{self.name} broke off after {index} frames", got=why)
        return InputError(f"{self.name} is damaged near frame {index}", got=why)

    def _time(self, decoded: VideoFrame, index: int) -> int:
        if decoded.pts is not None:
            return decoded.pts
        rate = self.rate or _ANY_RATE
        if index == 1:  # of an RTSP stream the first frame may have no time
            _log.warning("%s has no times: %s frames a second are assumed", self.name, rate)
        return round(index / rate / self.time_base)

    def _upright(self, decoded: VideoFrame) -> NDArray[np.uint8]:
        image: NDArray[Any] = decoded.to_ndarray(format="rgb24")
        quarters = round(decoded.rotation / 90)  # counter-clockwise
        if quarters % 2:
            self.pixel_aspect = 1 / self._stored_aspect
        return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image

    def _seconds(self) -> Fraction | None:
        """How long the video lasts as the file states; None if it does not."""
        stream, container = self._stream, self._container
        stated = _DURATION.fullmatch(stream.metadata.get("DURATION", ""))
        if stated is not None:
            hours, minutes, seconds = map(Fraction, stated.groups())
            return hours * 3600 + minutes * 60 + seconds
        if stream.duration is not None and any(name in container.format.name for name in _OWN_LENGTH):
            return stream.duration * self.time_base
        alone = "matroska" in container.format.name and len(container.streams) == 1
        return Fraction(container.duration, 1_000_000) if alone and container.duration is not None else None


def is_video(path: Path) -> bool:
    """Returns whether the content of a file is a video; a photo and sound are not.

    Raises:
        DependencyError: PyAV is missing.
        InputError: The file cannot be read, or has the suffix of a video and another content.
    """
    try:
        with ExitStack() as stack:
            _stream_of(path, stack)
    except _NotVideoError:
        if has_video_suffix(path):
            raise
        return False
    return True


def has_video_suffix(path: Path) -> bool:
    """Returns whether the name of a file ends as that of a video."""
    return path.suffix.lower() in _SUFFIXES


class _NotVideoError(InputError):
    """The content of a file is not a video."""


def _stream_of(path: Path, stack: ExitStack) -> VideoStream:
    """Opens a file and returns its stream of video; the stack closes it."""
    av = load_av()
    with reading(path):
        # As a file, not by its name: FFmpeg takes some names for addresses, and none with bytes that are not UTF-8.
        file = stack.enter_context(_Readable(io.FileIO(path)))
    try:
        container = stack.enter_context(open_container(file, options=_LOCAL))
    except (av.FFmpegError, OSError) as error:
        fix = "remove or replace it"
        raise _NotVideoError(f"{path} is damaged or not a video", got=reason(error), fix=fix) from error
    stream = container.streams.best("video")
    still = container.metadata.get("major_brand", "").strip() in _STILL_BRANDS
    # A photo in a container of videos, what FFmpeg does not decode, or the cover of an album.
    if (
        still
        or stream is None
        or stream.codec_context is None
        or av.stream.Disposition.attached_pic in stream.disposition
    ):
        raise _NotVideoError(
            f"{path} is not a video", got=f"{container.format.long_name} without a stream of video that can be decoded"
        )
    found: VideoStream = stream
    return found


def _check(path: Path, stream: VideoStream, max_pixels: int | None) -> None:
    context = stream.codec_context
    pixels, most = context.width * context.height, max_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if pixels > most:
        got = f"{pixels:,} pixels, {context.height}x{context.width}"
        raise InputError(f"{path} has too many pixels", got=got, expected=f"at most {most:,}", fix="raise `max_pixels`")
    if context.color_trc in _HDR:
        _log.warning("%s has a high dynamic range (HDR), which the net sees as pale: convert it to SDR first", path)
