"""Labels the frames of a video, a camera or a stream, and writes videos of them with the same timing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from fcn_deploy.data.frames import Frame, FrameSource
from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.grouping import grouped
from fcn_deploy.reporting.pictures import KINDS_OF_VIDEO, overlaid
from fcn_deploy.reporting.video import VideoWriter
from fcn_deploy.workflows.labelling import Labelling, Labels, Meter
from fcn_deploy.workflows.predictions import VideoPrediction

_log = logging.getLogger(__name__)

_FINEST = 1_000_000  # the largest denominator of a rate: FFmpeg holds 32 bits


def label_video(
    labelling: Labelling, source: FrameSource, targets: Sequence[Path]
) -> tuple[VideoPrediction | None, InputError | None]:
    """Labels the frames of a source and writes a video of each kind.

    What a live source has given until it was interrupted or broke off is written; of a file nothing is.

    Args:
        labelling: How.
        source: Open.
        targets: The file of each kind.

    Returns:
        What was made, None if nothing; and the first thing that could not be read or labelled, if such things are left
        out, or if it ended a live source.

    Raises:
        InputError: A frame cannot be read or does not fit, or a file cannot be written.
        KeyboardInterrupt: Ctrl-C.
    """
    run = _VideoRun(labelling, source, targets)
    try:
        return run.made(), run.error
    except _LeftOutError as stop:
        return None, stop.error


class _LeftOutError(Exception):
    """Nothing is made of a source, and the others are to go on."""

    def __init__(self, error: InputError) -> None:
        super().__init__(str(error))
        self.error = error


class _VideoRun:
    def __init__(self, labelling: Labelling, source: FrameSource, targets: Sequence[Path]) -> None:
        self._labelling, self._source, self._targets = labelling, source, targets
        self._meter = Meter(source.name)
        self._taken = self._labelled = self._damaged = 0
        self.error: InputError | None = None  # the first

    def made(self) -> VideoPrediction:
        labelling, source = self._labelling, self._source
        total = labelling.selection.most if source.live else labelling.selection.count(source.total)
        interrupt: KeyboardInterrupt | None = None
        with (
            labelling.progress.counting(f"predicting {source.name}", total, self._meter.note) as show,
            _Writers(labelling, source, self._targets) as writers,
        ):
            try:
                for group in grouped(self._frames(), labelling.batch, lambda frame: frame.image):
                    for frame, labels in zip(group, self._labels(group), strict=True):
                        writers.write(frame, labels)
                        self._labelled += 1
                    show(self._labelled)
            except KeyboardInterrupt as error:
                if not source.live or not self._labelled:
                    raise
                interrupt = error
            speed = self._meter.speed()
            if not self._labelled:
                self._stop(self.error or InputError(f"{source.name} has no frames", expected="at least one"))
        if source.left_out:
            _log.info("%s: %d frames came while the engine was busy, and are left out", source.name, source.left_out)
        if interrupt is not None:
            _log.info("%s: what was labelled until now is written", source.name)
            raise interrupt
        files = tuple(self._targets)
        return VideoPrediction(source.name, self._labelled, self._damaged, files, speed, source.left_out)

    def _labels(self, group: Sequence[Frame]) -> list[Labels]:
        try:
            return self._labelling.labels([frame.image for frame in group], self._meter)
        except InputError as error:
            what = f"{self._source.name}: {error.what}"
            self._stop(InputError(what, got=error.got, expected=error.expected, fix=error.fix))

    def _stop(self, error: InputError) -> NoReturn:
        raise _LeftOutError(error) if self._labelling.skipping else error

    def _frames(self) -> Iterator[Frame]:
        """Yields the frames that are taken, and deals with those that cannot be read."""
        selection = self._labelling.selection
        for found in self._source.frames():
            if isinstance(found, InputError):
                self._damaged += 1
                self.error = self.error or found
                if self._labelling.skipping:
                    continue
                if self._source.live and self._labelled:
                    return  # what it has given is kept
                if not self._source.live:
                    found.advise("`on_error=skip` keeps what can be read")
                raise found
            if self._labelling.ended:
                return
            if selection.takes(found.index):
                yield found
                self._taken += 1
            if self._taken == selection.most:
                return


class _Writers:
    """The video of each kind, each of which takes its place if the context ends without an error."""

    def __init__(self, labelling: Labelling, source: FrameSource, targets: Sequence[Path]) -> None:
        self._labelling, self._source, self._targets = labelling, source, targets
        self._opened = ExitStack()
        self._writers: list[VideoWriter] = []
        self._start: int | None = None

    def __enter__(self) -> _Writers:
        self._opened.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, traceback)

    def write(self, frame: Frame, labels: Labels) -> None:
        """Adds a frame to each; the first decides when they begin."""
        spec = self._labelling.segmenter.spec
        if self._start is None:
            self._start = frame.pts
            self._writers = [self._open(path) for path in self._targets]
        for kind, writer in zip(self._labelling.kinds, self._writers, strict=True):
            writer.write(KINDS_OF_VIDEO[kind](frame.image, labels, spec), frame.pts - self._start, frame.duration)
        if self._labelling.window is not None:
            self._labelling.window.show(overlaid(frame.image, labels, spec))

    def _open(self, path: Path) -> VideoWriter:
        source = self._source
        rate = None if source.rate is None else _slowed(source.rate, self._labelling.selection.every)
        writer = VideoWriter(path, source.time_base, rate, source.pixel_aspect)
        return self._opened.enter_context(writer)


def _slowed(rate: Fraction, every: int) -> Fraction | None:
    """Returns the rate of every how many-th frame; None if it is next to nothing, which files cannot state."""
    return (rate / every).limit_denominator(_FINEST) or None
