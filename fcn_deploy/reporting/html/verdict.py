"""The verdict: ship or not, and why; and the few figures that people ask for first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.reporting.html.table import figure
from fcn_deploy.reporting.units import interval_95, with_prefix


@dataclass(frozen=True)
class Verdict:
    """What the page begins with.

    Attributes:
        tone: `ship`; `stop` if nothing may be shipped; `open` if that was not decided.
        title: The verdict.
        reason: A sentence.
        failures: What each engine missed.
    """

    tone: Literal["ship", "stop", "open"]
    title: str
    reason: str
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Tile:
    """A figure of the main engine: its value, what it is, and what that means."""

    value: str
    label: str
    detail: str


def verdict(summary: Summary) -> Verdict:
    """Returns the verdict of a summary."""
    failures = tuple(f"{each.file}: {failure}" for each in summary.engines for failure in each.failures)
    ship = summary.ship
    if ship is not None and ship.engine is not None:
        return Verdict("ship", f"Ship {ship.engine}", _sentence(ship.reason), failures)
    if not summary.passed:
        missed = " and ".join(each.precision.upper() for each in summary.engines if not each.gate.passed)
        return Verdict("stop", "Do not ship", _sentence(ship.reason if ship else f"{missed} missed the gate"), failures)
    if ship is not None:
        return Verdict("open", "Not decided yet", _sentence(ship.reason), failures)
    reason = "Every engine met its gate; the version that wrote the summary does not say which to ship."
    return Verdict("open", "Not decided", reason, failures)


def shipped(summary: Summary) -> EngineSummary | None:
    """Returns the engine to ship, or None."""
    name = None if summary.ship is None else summary.ship.engine
    return next((each for each in summary.engines if each.file == name), None)


def main_engine(summary: Summary) -> EngineSummary:
    """Returns the engine to ship; without one, the last."""
    return shipped(summary) or summary.engines[-1]


def tiles(summary: Summary) -> tuple[Tile, ...]:
    """Returns the figures of the main engine that people ask for first."""
    engine = main_engine(summary)
    found = [_speed(engine), _size(engine, summary.engines[0])]
    parity = engine.parity
    agreement = parity.agreement if parity.measured else None
    interval = interval_95(parity.agreement_low, parity.agreement_high, ".2%")
    detail = f"of the pixels{interval if parity.measured else ' (it could not be measured)'}"
    found.append(Tile(figure(agreement, ".2%"), "same label as PyTorch", detail))
    if engine.miou_drop is not None:
        drop = engine.miou_drop
        detail = f"points{interval_95(drop.low, drop.high, '+.2f')}"
        found.append(Tile(figure(drop.points, "+.2f"), "loss of mIoU", detail))
    return tuple(tile for tile in found if tile is not None)


def _speed(engine: EngineSummary) -> Tile | None:
    compared: tuple[tuple[str, Ratio | None], ...] = (
        ("FP32", engine.vs_fp32),
        ("FP16", engine.vs_fp16),
        ("PyTorch", engine.vs_pytorch),
    )
    for name, ratio in compared:
        if ratio is not None and engine.precision.upper() != name:
            detail = f"median {figure(engine.median_ms, '.1f', ' ms')}, image to labels{_doubt(ratio)}"
            return Tile(ratio.in_words, f"compared with {name}", detail)
    return None


def _doubt(ratio: Ratio) -> str:
    """Says why a ratio of times may be chance: the rule by which an engine is shipped asks for its quartiles."""
    if math.isnan(ratio.low):
        return "; too few rounds to be sure"
    return "; within the scatter of the rounds" if ratio.low <= 1 <= ratio.high else ""


def _size(engine: EngineSummary, first: EngineSummary) -> Tile:
    if engine is first or not engine.bytes:
        return Tile(with_prefix(engine.bytes, "B"), "size", engine.precision.upper())
    smaller = first.bytes / engine.bytes
    return Tile(with_prefix(engine.bytes, "B"), "size", f"{first.precision.upper()} has {smaller:.1f}x as much")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."
