"""CUDA graphs: work that is captured when it comes a second time, and launched as a whole from then on."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass

from fcn_deploy.runtime.tensorrt.context import Context, Shapes
from fcn_deploy.runtime.tensorrt.cuda import Graph

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a CUDA graph is captured for: the graph holds these shapes and addresses, and runs no others.

    Attributes:
        shapes: The shapes of the inputs.
        addresses: Addresses of all tensors by name, in the order of names.
    """

    shapes: Shapes
    addresses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Captured:
    """A graph and the context that it was captured from, which nothing else may use while the graph lives."""

    context: Context
    graph: Graph


class GraphLimit:
    """How many CUDA graphs every stream of an engine keeps.

    Attributes:
        kept: The number; 0 if nothing is captured, and for good once a capture has failed.
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept

    def give_up(self, error: Exception) -> None:
        """Ends capturing on all streams: what has failed once fails again, and work runs without graphs, too."""
        if self.kept:
            reason = str(error).strip().split("\n")[0]
            _log.warning("CUDA graphs are off from here on, because a capture failed: %s", reason)
        self.kept = 0


class GraphCache:
    """The CUDA graphs of one stream; those used longest ago go first.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: GraphLimit) -> None:
        self._limit = limit
        self._captured: OrderedDict[Work, Captured] = OrderedDict()
        # Not among the graphs: work on arrays that are at another address each time must not evict these.
        self._seen: OrderedDict[Work, None] = OrderedDict()

    def find(self, work: Work) -> Graph | None:
        """Returns the graph of some work; None if it has not been captured."""
        captured = self._captured.get(work)
        if captured is None:
            return None
        self._captured.move_to_end(work)
        return captured.graph

    def due(self, work: Work) -> bool:
        """Returns whether to capture some work now: when it comes a second time, as the first was the warm-up."""
        if not self._limit.kept:
            return False
        if work in self._seen:
            del self._seen[work]
            return True
        self._seen[work] = None
        if len(self._seen) > self._limit.kept:
            self._seen.popitem(last=False)
        return False

    def keep(self, work: Work, captured: Captured) -> None:
        """Keeps a graph."""
        self._captured[work] = captured
        if len(self._captured) > max(1, self._limit.kept):
            _, oldest = self._captured.popitem(last=False)
            oldest.graph.close()

    def clear(self) -> None:
        """Frees all of them: their addresses are no longer valid."""
        captured, self._captured = self._captured, OrderedDict()
        self._seen.clear()
        for each in captured.values():
            each.graph.close()
