"""How long work tells what it is doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Someone who is told of progress."""

    def stage(self, text: str) -> None:
        """A step begins or has ended; `text` says which."""

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Passes `items` on, of which there are `total`, while work of the name `what` is done on each."""


class Silent:
    """Nobody listens."""

    def stage(self, text: str) -> None:
        """Says nothing."""

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Passes `items` on."""
        yield from items
