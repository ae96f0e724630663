"""How long-running work reports its progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """A listener to progress."""

    def stage(self, text: str) -> None:
        """A step begins or has ended, as `text` says."""

    def working(self, text: str) -> AbstractContextManager[None]:
        """The step that `text` names runs until the context ends; its length is unknown."""

    def measuring(self, text: str) -> AbstractContextManager[Callable[[float], None]]:
        """Latency is measured until the context ends; `text` says of what.

        The context gives a function to call with the share that is done, 0..1. Nothing is drawn between these calls,
        because drawing would take time from what is measured.
        """

    def advancing(self, text: str) -> AbstractContextManager[Callable[[float], None]]:
        """The step that `text` names runs until the context ends, and reports how far it is.

        The context gives a function to call with the share that is done, 0..1, from any thread.
        """

    def counting(
        self, text: str, total: int | None, note: Callable[[], str]
    ) -> AbstractContextManager[Callable[[float], None]]:
        """The step that `text` names runs until the context ends, and reports how many items are done.

        `total` is their number, None if it is not known; `note` returns what else there is to say, such as their rate,
        and is called whenever a line is written, from any thread. The context gives a function to call with the number
        that is done.
        """

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yields `items`, `total` in number, while the caller does work that `what` names on each."""


class Silent:
    """A listener that does nothing."""

    def stage(self, text: str) -> None:
        """Does nothing."""

    def working(self, text: str) -> AbstractContextManager[None]:
        """Does nothing."""
        return nullcontext()

    def measuring(self, text: str) -> AbstractContextManager[Callable[[float], None]]:
        """Does nothing."""
        return nullcontext(lambda share: None)

    def advancing(self, text: str) -> AbstractContextManager[Callable[[float], None]]:
        """Does nothing."""
        return nullcontext(lambda share: None)

    def counting(
        self, text: str, total: int | None, note: Callable[[], str]
    ) -> AbstractContextManager[Callable[[float], None]]:
        """Does nothing."""
        return nullcontext(lambda done: None)

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yields `items`."""
        yield from items
