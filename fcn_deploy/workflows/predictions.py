"""What `predict` gives back: what was labelled, what was written, how fast, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcn_deploy.errors import InputError
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.text import printable

_SHOWN = 3  # failures in the message of an error
_PERCENTILES = (90, 95, 99)


@dataclass(frozen=True)
class Failure:
    """A file that could not be labelled, or not all of it.

    Attributes:
        file: The file.
        error: Why, on one line.
    """

    file: Path
    error: str


@dataclass(frozen=True, eq=False)
class Speed:
    """How fast frames were labelled.

    Attributes:
        frames: How many.
        seconds: From the first to the last, with reading and writing.
        latency: Of each run of the engine, from images to labels; a run has as many images as a batch.
    """

    frames: int
    seconds: float
    latency: Timing

    @property
    def frames_per_second(self) -> float:
        """With reading and writing."""
        return self.frames / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data; times as `benchmark` has them."""
        return {
            "frames_per_second": self.frames_per_second,
            "rounds": len(self.latency.latencies),
            "median_ms": self.latency.median,
            "min_ms": float(self.latency.latencies.min()),
            "percentiles_ms": {f"{share:g}": self.latency.percentile(share) for share in _PERCENTILES},
        }


def together(name: str, speeds: Sequence[Speed | None]) -> Speed | None:
    """Returns the speed of several sources, one after the other; None if none of them has frames."""
    known = [speed for speed in speeds if speed is not None]
    if not known:
        return None
    latencies = np.concatenate([speed.latency.latencies for speed in known])
    frames, seconds = sum(speed.frames for speed in known), sum(speed.seconds for speed in known)
    return Speed(frames, seconds, Timing(name, latencies))


@dataclass(frozen=True, eq=False)
class VideoPrediction:
    """What was made of a video, a camera or a stream.

    Attributes:
        source: The file, or the address without a password.
        frames: How many frames were labelled.
        damaged: How many could not be read, and are missing from what was written.
        files: What was written.
        speed: None if no frame was labelled.
        left_out: How many frames of a camera or a stream came while the engine was busy, and were left out.
    """

    source: str
    frames: int
    damaged: int
    files: tuple[Path, ...]
    speed: Speed | None = None
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        counts = {"source": self.source, "frames": self.frames, "damaged": self.damaged, "left_out": self.left_out}
        speed = {} if self.speed is None else self.speed.to_json()
        return {**counts, "files": list(map(str, self.files)), **speed}


@dataclass(frozen=True)
class Predictions:
    """What was written.

    Attributes:
        engine: Name of what labelled the images.
        images: How many were labelled.
        files: In the order of the images, then of the videos.
        failed: What could not be labelled; nothing unless `on_error` is `skip`, or a camera or a stream broke off.
        videos: What was made of each video, camera or stream.
        speed: Of all frames; None if there were none.
    """

    engine: str
    images: int
    files: tuple[Path, ...]
    failed: tuple[Failure, ...] = ()
    videos: tuple[VideoPrediction, ...] = ()
    speed: Speed | None = None

    @property
    def frames(self) -> int:
        """How many frames were labelled: images, and frames of videos."""
        return self.images + sum(video.frames for video in self.videos)

    def require_complete(self) -> None:
        """Raises if a file could not be labelled, or not all of it.

        Raises:
            InputError: One could not; the message names the first few, and says why.
        """
        if not self.failed:
            return
        whole = {str(failure.file) for failure in self.failed} - {video.source for video in self.videos}
        total = self.images + len(self.videos) + len(whole)
        shown = "; ".join(failure.error for failure in self.failed[:_SHOWN])
        more = f"; and {len(self.failed) - _SHOWN} more" if len(self.failed) > _SHOWN else ""
        part = " in full" if len(whole) < len(self.failed) else ""
        raise InputError(f"{len(self.failed)} of {total} files could not be labelled{part}", got=f"{shown}{more}")

    def __repr__(self) -> str:
        videos = f"{len(self.videos)} videos, {self.frames} frames, " if self.videos else ""
        return printable(f"Predictions({self.engine}, {self.images} images, {videos}{len(self.files)} files)")

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        failed = [{"file": str(failure.file), "error": failure.error} for failure in self.failed]
        written = {"images": self.images, "frames": self.frames, "files": list(map(str, self.files))}
        videos = [video.to_json() for video in self.videos]
        speed = {} if self.speed is None else self.speed.to_json()
        return {"engine": self.engine, **written, "failed": failed, "videos": videos, **speed}
