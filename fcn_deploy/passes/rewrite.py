"""What all rewrites share: a promise about the numbers, a record of what was declined, and the order they run in."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Declined:
    """A place that a rewrite looked at and left as it is.

    Attributes:
        reason: Why, such as `its bias is computed`.
        node: Name of the node; None if the reason is about the graph as a whole.
    """

    reason: str
    node: str | None = None

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}" if self.node else self.reason


@dataclass
class RewriteResult(ir.passes.PassResult):
    """What a rewrite did.

    Attributes:
        model: The model that went in, changed in place.
        modified: Whether it was changed.
        declined: The places that looked like work and were left as they are, in the order of the graph.
    """

    declined: tuple[Declined, ...] = ()


class Rewrite(ir.passes.InPlacePass):
    """A small change of a graph, with a promise about the numbers that the graph gives.

    Attributes:
        tolerance: The most by which an output may move, as a share of the range of its values. 0: the outputs are
            the same, to the last bit. None: there is no bound, because the rewrite changes the precision; what it
            costs must be measured.
    """

    tolerance: ClassVar[float | None]

    @property
    def keeps_numbers(self) -> bool:
        """Whether the outputs stay the same to the last bit."""
        return self.tolerance == 0

    @abc.abstractmethod
    def call(self, model: ir.Model) -> RewriteResult:
        """Rewrites a model in place."""

    def __call__(self, model_or_result: ir.Model | ir.passes.PassResult, /) -> RewriteResult:
        """Rewrites a model in place, and logs what was done and what was declined."""
        result = super().__call__(model_or_result)
        assert isinstance(result, RewriteResult)
        name = type(self).__name__
        for declined in result.declined:
            _log.debug("%s declined %s", name, declined)
        _log.debug("%s: %s", name, "changed the graph" if result.modified else "changed nothing")
        return result


def rewrite_each(
    model: ir.Model, nodes: Iterable[ir.Node], rewrite: Callable[[ir.Graph, ir.Node], str | None]
) -> RewriteResult:
    """Rewrites nodes one by one.

    Args:
        model: Is changed in place.
        nodes: Of its graph.
        rewrite: Rewrites one, or returns why it does not.
    """
    modified = False
    declined = []
    for node in list(nodes):
        reason = rewrite(model.graph, node)
        if reason is None:
            modified = True
        else:
            declined.append(Declined(reason, node.name))
    return RewriteResult(model, modified, tuple(declined))


class Lowering(ir.passes.Sequential):
    """Rewrites in a fixed order.

    `Sequential` wraps each error of a pass in a `PassError`; here an error reaches the user as it was raised, with what
    it says of the fix.
    """

    def __call__(self, model_or_result: ir.Model | ir.passes.PassResult, /) -> RewriteResult:
        """Runs the rewrites in order; see `call`."""
        result = super().__call__(model_or_result)
        assert isinstance(result, RewriteResult)
        return result

    def call(self, model: ir.Model) -> RewriteResult:
        """Runs the rewrites in order.

        Returns:
            Whether any of them changed the model, and what all of them declined.

        Raises:
            InputError: A rewrite cannot express the graph; which one can is said in its docstring.
            UsageError: A rewrite was asked for something that it cannot do.
        """
        modified = False
        declined: list[Declined] = []
        for step in self.passes:
            result = step(model)
            model, modified = result.model, modified or result.modified
            declined += result.declined if isinstance(result, RewriteResult) else ()
        return RewriteResult(model, modified, tuple(declined))
