"""Video files, written with PyAV: frames with the times that they have, whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.data.pyav import load_av, reason
from fcn_deploy.errors import InputError
from fcn_deploy.files import replacing

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from typing_extensions import Self

_log = logging.getLogger(__name__)

# H.264 for pictures. Without B-frames, whose order of decoding makes players cut the end of a video whose frame rate
# varies. `veryfast` leaves the cores to the net.
_H264 = {"preset": "veryfast", "crf": "20", "bf": "0"}
# FFV1 for labels: no value changes. A checksum for each slice.
_FFV1 = {"level": "3", "slicecrc": "1"}
# ITU-R BT.709 and its limited range, by ITU-T H.273: what players take for granted, and here it is written down.
_BT709, _LIMITED = 1, 1


class VideoWriter:
    """Writes an MP4 file of pictures or of labels; the file takes its place when the context ends without an error.

    Colours are H.264, which loses a little; labels are FFV1, which keeps every value. Pictures of an even height and
    width have one colour for 2x2 pixels (4:2:0), as all players expect; others have one for each (4:4:4).

    Args:
        path: The file to write.
        time_base: Seconds that one unit of time stands for.
        rate: Frames a second, which players are told; about 25 if None.
        pixel_aspect: Width of a pixel over its height.

    Raises:
        DependencyError: PyAV is missing.
        InputError: The file cannot be written.
    """

    def __init__(
        self, path: Path, time_base: Fraction, rate: Fraction | None = None, pixel_aspect: Fraction = Fraction(1)
    ) -> None:
        self._path, self._time_base, self._rate, self._aspect = path, time_base, rate, pixel_aspect
        self._opened = ExitStack()
        self._container: Any = None
        self._stream: VideoStream | None = None
        self._durations: dict[int, int] = {}

    def __enter__(self) -> Self:
        av = load_av()
        with ExitStack() as stack:
            file = stack.enter_context(replacing(self._path))
            self._container = stack.enter_context(av.open(file, "w", format="mp4"))
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            try:
                with self._writing():
                    self._mux(None)
                    self._container.close()
            except BaseException as failure:
                self._opened.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._opened.__exit__(kind, error, traceback)

    def write(self, picture: NDArray[Any], pts: int, duration: int = 0) -> None:
        """Adds a frame.

        Args:
            picture: uint8 [H, W, 3] in RGB; or labels, uint8 or uint16 [H, W]. The first decides what the file holds.
            pts: When it is shown, in units of the time base; after the frame before.
            duration: For how long; 0 if that is not known.

        Raises:
            InputError: It has another size than the frames before, or the file cannot be written.
        """
        with self._writing():
            if self._stream is None:
                self._stream = self._added(picture)
            size = (self._stream.height, self._stream.width)
            if picture.shape[:2] != size:
                got, expected = ("{}x{}".format(*each) for each in (picture.shape[:2], size))
                raise InputError(f"{self._path} holds frames of one size", got=got, expected=expected)
            frame = _frame(picture, str(self._stream.pix_fmt))
            frame.pts, frame.time_base = pts, self._time_base
            self._durations[pts] = duration
            self._mux(frame)

    def _added(self, picture: NDArray[Any]) -> VideoStream:
        height, width = picture.shape[:2]
        is_labels = picture.ndim == 2
        options = _FFV1 if is_labels else _H264
        codec, rate = "ffv1" if is_labels else "libx264", self._rate or 25
        stream: VideoStream = self._container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = height, width
        context = stream.codec_context
        context.time_base = self._time_base
        context.sample_aspect_ratio = self._aspect
        if is_labels:
            stream.pix_fmt = "gray" if picture.dtype == np.uint8 else "gray16le"
            return stream
        even = height % 2 == width % 2 == 0
        stream.pix_fmt = "yuv420p" if even else "yuv444p"
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        if not even:
            size = f"{height}x{width}"
            _log.warning("%s: %s is odd, so it has 4:4:4 colour, which not every player shows", self._path, size)
        return stream

    def _mux(self, frame: VideoFrame | None) -> None:
        """Encodes a frame, or what the encoder still holds, and writes what it gives."""
        if self._stream is None:
            raise InputError(f"cannot write {self._path}", got="no frames")
        for packet in self._stream.encode(frame):
            packet.duration = self._durations.pop(packet.pts or 0, 0)
            self._container.mux(packet)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (load_av().FFmpegError, OSError) as error:
            raise InputError(f"cannot write {self._path}", got=reason(error)) from error


def _frame(picture: NDArray[Any], pix_fmt: str) -> VideoFrame:
    av = load_av()
    frame: VideoFrame = av.VideoFrame.from_ndarray(picture, format=pix_fmt if picture.ndim == 2 else "rgb24")
    if picture.ndim == 3:
        frame = frame.reformat(format=pix_fmt, dst_colorspace=_BT709, dst_color_range=_LIMITED)
    return frame
