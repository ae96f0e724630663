"""Runs an engine on batches of images, and measures it on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.data.frames import Selection
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.evaluation.parity import run_together
from fcn_deploy.progress import Progress
from fcn_deploy.reporting.window import Window
from fcn_deploy.runtime import Segmenter
from fcn_deploy.workflows.predictions import Speed

Labels = NDArray[np.integer[Any]]

_RECENT = 101  # runs whose median is shown while it goes


@dataclass(frozen=True)
class Labelling:
    """How frames are labelled, and what is made of them.

    Attributes:
        segmenter: The engine.
        kinds: What is written of each.
        tiled: Whether the segmenter runs in tiles.
        batch: At most so many neighbours of equal size run together.
        selection: Which frames are taken.
        skipping: Whether what cannot be read is left out.
        progress: Told of each frame.
        window: Shows the overlay; None if nobody looks.
    """

    segmenter: Segmenter
    kinds: tuple[str, ...]
    tiled: bool
    batch: int
    selection: Selection
    skipping: bool
    progress: Progress
    window: Window | None = None

    @property
    def ended(self) -> bool:
        """Whether the user has closed the window."""
        return self.window is not None and self.window.closed

    def labels(self, images: Sequence[NDArray[np.uint8]], meter: Meter) -> list[Labels]:
        """Labels images of one size, uint8 [H, W, 3], and tells the meter how long it took.

        Raises:
            InputError: The images do not fit the engine.
        """
        batch = np.stack(images)
        begin = time.perf_counter()
        if self.tiled:
            found = list(self.segmenter(batch))
        else:
            found = [output.labels for output in run_together(self.segmenter, batch)]
        meter.add(time.perf_counter() - begin, len(images))
        return found


@dataclass
class Meter:
    """Measures how fast frames are labelled.

    Attributes:
        name: Of what gives them.
    """

    name: str
    _frames: int = 0
    _begin: float = field(default_factory=time.perf_counter)
    _latencies: list[float] = field(default_factory=list)  # milliseconds

    def add(self, seconds: float, frames: int) -> None:
        """Adds a run of the engine."""
        self._latencies.append(1000 * seconds)
        self._frames += frames

    def note(self) -> str:
        """Returns what a line of progress says: `12.3 frames/s, 41 ms (median 40 ms)`; nothing before the first run."""
        recent = self._latencies[-_RECENT:]
        if not recent:
            return ""
        rate = self._frames / (time.perf_counter() - self._begin)
        return f"{rate:.1f} frames/s, {recent[-1]:.0f} ms (median {np.median(recent):.0f} ms)"

    def speed(self) -> Speed | None:
        """Returns what was measured until now; None before the first run."""
        if not self._latencies:
            return None
        seconds = time.perf_counter() - self._begin
        return Speed(self._frames, seconds, Timing(self.name, np.array(self._latencies)))
