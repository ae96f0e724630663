"""Keeps up with a live source: an engine that is slower than a camera gets the newest frames, not ever older ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING

from fcn_deploy.data.frames import Frame, FrameSource, Selection
from fcn_deploy.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

# Frames that may wait. So many come while an engine that is fast enough has a slow moment; more would be a delay.
WAITING = 8


class KeepingUp:
    """Frames of a live source, read by a thread; if too many wait, the oldest is left out.

    Without it they would wait in the driver or in the network, hundreds of them, and each would be shown later than the
    one before. See `FrameSource` for the attributes. It is used in a `with`, inside that of the source.

    Args:
        source: Open.
        selection: Which frames are taken; the others do not count as left out.
        waiting: How many frames may wait.

    Attributes:
        left_out: How many frames were left out until now.
    """

    def __init__(self, source: FrameSource, selection: Selection, waiting: int = WAITING) -> None:
        self._source, self._selection, self._waiting = source, selection, waiting
        self.name, self.path, self.live, self.total = source.name, source.path, source.live, source.total
        self.time_base, self.rate = source.time_base, source.rate
        self.left_out = 0
        self._found: deque[Frame | InputError] = deque()
        self._failure: BaseException | None = None
        self._over = False  # nothing more will come
        self._stopped = False  # no more is asked for
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name=f"reading {source.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped = True
        self._thread.join()

    @property
    def has_audio(self) -> bool:
        """Whether there is sound."""
        return self._source.has_audio

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel over its height."""
        return self._source.pixel_aspect

    def frames(self) -> Iterator[Frame | InputError]:
        """Yields frames as they come, and the errors of the source, of which none is left out."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._found or self._over)
                if not self._found:
                    break
                found = self._found.popleft()
            yield found
        if self._failure is not None:
            raise self._failure

    def _read(self) -> None:
        try:
            for found in self._source.frames():
                if self._stopped:
                    return
                if isinstance(found, InputError) or self._selection.takes(found.index):
                    self._add(found)
        except BaseException as error:  # raised where frames are asked for
            self._failure = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify()

    def _add(self, found: Frame | InputError) -> None:
        with self._changed:
            waiting = [each for each in self._found if isinstance(each, Frame)]
            if isinstance(found, Frame) and len(waiting) >= self._waiting:
                self._found.remove(waiting[0])
                self.left_out += 1
            self._found.append(found)
            self._changed.notify()
