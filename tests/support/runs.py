"""Runs `predict` in a process of its own, and looks at what it leaves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.runtime import Segmenter

_MAIN = "import sys; from fcn_deploy.cli.app import main; main()"


def started(*arguments: object) -> subprocess.Popen[str]:
    """Starts a command line."""
    return subprocess.Popen([sys.executable, "-c", _MAIN, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds, at most a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def names(folder: Path) -> list[str]:
    """Returns the files below a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def labelled(model: Path, frames: Iterable[NDArray[np.uint8]]) -> tuple[NDArray[Any], ModelSpec]:
    """Returns what a segmenter makes of frames, one after the other, and its spec."""
    with Segmenter(model) as segmenter:
        return np.stack([segmenter(frame) for frame in frames]), segmenter.spec
