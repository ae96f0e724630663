"""How long work tells what it is doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Someone who is told of progress."""

    def stage(self, text: str) -> None:
        """A step begins or has ended; `text` says which."""

    def working(self, text: str) -> AbstractContextManager[None]:
        """A step of unknown length is under way until the context ends; `text` says which."""

    def measuring(self, text: str) -> AbstractContextManager[Callable[[float], None]]:
        """Latency is measured until the context ends.

        Whoever measures calls what the context gives with the share that is done, 0..1; between the calls nothing is
        drawn, for it would take its time from what is measured.
        """

    def advancing(self, text: str) -> AbstractContextManager[Callable[[float], None]]:
        """A step that knows how far it is is under way until the context ends; `text` says which.

        Whoever does it calls what the context gives with the share that is done, 0..1, from whatever thread.
        """

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Passes `items` on, of which there are `total`, while work of the name `what` is done on each."""


class Silent:
    """Nobody listens."""

    def stage(self, text: str) -> None:
        """Says nothing."""

    def working(self, text: str) -> AbstractContextManager[None]:
        """Says nothing."""
        return nullcontext()

    def measuring(self, text: str) -> AbstractContextManager[Callable[[float], None]]:
        """Says nothing."""
        return nullcontext(lambda share: None)

    def advancing(self, text: str) -> AbstractContextManager[Callable[[float], None]]:
        """Says nothing."""
        return nullcontext(lambda share: None)

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Passes `items` on."""
        yield from items
