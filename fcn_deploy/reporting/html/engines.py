"""The engines beside PyTorch: a column for each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.reporting.html.table import MISSING, Cell, FigureTable, Row, figure, fraction, largest
from fcn_deploy.reporting.html.verdict import shipped
from fcn_deploy.reporting.units import with_prefix

_NOT_TIMED = "The engines are simulated on the CPU, whose time would say nothing of the device."


def engine_table(summary: Summary) -> FigureTable:
    """Returns a table with a row for each figure, and columns for PyTorch and each engine."""
    engines = summary.engines
    rows: list[Row] = []

    def row(name: str, pytorch: Cell, of: Callable[[EngineSummary], Cell], detail: str = "") -> None:
        rows.append(Row(Cell(name, detail), (pytorch, *map(of, engines))))

    row("gate", Cell(), _gate)
    largest_file = largest([each.bytes for each in engines])
    row("size", Cell(), lambda each: Cell(with_prefix(each.bytes, "B"), bar=fraction(each.bytes, largest_file)))
    row("agreement", Cell("reference"), _agreement, "same label as PyTorch")
    if any(each.simulated_agreement is not None for each in engines):
        row("agreement before", Cell(), lambda each: Cell(figure(each.simulated_agreement, ".3%")), "simulated")
    if summary.pytorch_miou is not None:
        pytorch = Cell(figure(summary.pytorch_miou, ".2f"), bar=fraction(summary.pytorch_miou, 100))
        row("mIoU", pytorch, lambda each: Cell(figure(each.miou, ".2f"), bar=fraction(each.miou, 100)), "points")
        row("loss of mIoU", Cell(), _drop, "points, against PyTorch")
    if any(each.median_ms is not None for each in engines):
        _add_times(row, summary)
    return FigureTable(
        caption=f"Figures from {summary.calibration.get('judged', 0)} images",
        corner="figure",
        columns=(Cell("PyTorch"), *(_header(each, summary) for each in engines)),
        rows=tuple(rows),
        notes=_notes(summary),
    )


def _add_times(row: Callable[[str, Cell, Callable[[EngineSummary], Cell], str], None], summary: Summary) -> None:
    slowest = largest([summary.pytorch_ms, *(each.median_ms for each in summary.engines)])
    pytorch = _latency(summary.pytorch_ms, slowest)
    row("median latency", pytorch, lambda each: _latency(each.median_ms, slowest), "image to labels")
    for share in dict.fromkeys(share for each in summary.engines for share in each.percentiles_ms):
        pytorch = _latency(summary.pytorch_percentiles_ms.get(share), slowest)
        row(f"p{share} latency", pytorch, functools.partial(_slow, share, slowest), f"{share}% of the runs are faster")
    others: Mapping[str, Callable[[EngineSummary], Ratio | None]] = {
        "PyTorch": lambda each: each.vs_pytorch,
        "FP32": lambda each: each.vs_fp32,
        "FP16": lambda each: each.vs_fp16,
    }
    for name, of in others.items():
        ratios = [of(each) for each in summary.engines]
        if any(ratio is not None for ratio in ratios):
            best = largest([_speedup(ratio) for ratio in ratios])
            itself = Cell("1" if name == "PyTorch" else MISSING)
            row(f"speed over {name}", itself, functools.partial(_faster, of, best), "bar: times as fast")


def _latency(milliseconds: float | None, slowest: float | None) -> Cell:
    return Cell(figure(milliseconds, ".1f", " ms"), bar=fraction(milliseconds, slowest))


def _slow(share: str, slowest: float | None, engine: EngineSummary) -> Cell:
    return _latency(engine.percentiles_ms.get(share), slowest)


def _header(engine: EngineSummary, summary: Summary) -> Cell:
    simulated = f"{engine.precision.upper()}, simulated" if engine.simulates else engine.precision.upper()
    is_shipped = engine is shipped(summary)
    return Cell(f"{simulated}, to ship" if is_shipped else simulated, engine.file, tone="good" if is_shipped else "")


def _gate(engine: EngineSummary) -> Cell:
    criteria = ", ".join(engine.gate.criteria)
    return Cell("passed", criteria, tone="good") if engine.gate.passed else Cell("FAILED", criteria, tone="bad")


def _agreement(engine: EngineSummary) -> Cell:
    parity = engine.parity
    if parity.reference_not_finite or parity.engine_not_finite:
        return Cell("NaN or infinite", "logits that are no numbers", tone="bad")
    if not parity.measured:
        return Cell("one label", "both give it everywhere: it says nothing", tone="bad")
    interval = _interval(parity.agreement_low, parity.agreement_high, ".3%")
    return Cell(figure(parity.agreement, ".3%"), interval, bar=fraction(parity.agreement, 1))


def _drop(engine: EngineSummary) -> Cell:
    drop = engine.miou_drop
    if drop is None:
        return Cell()
    if math.isnan(drop.points):
        return Cell("not measured", tone="bad")
    return Cell(f"{drop.points:+.2f}", _interval(drop.low, drop.high, "+.2f"))


def _interval(low: float, high: float, form: str) -> str:
    return "one image: no interval" if math.isnan(low) else f"{low:{form}} to {high:{form}}"


def _speedup(ratio: Ratio | None) -> float | None:
    return None if ratio is None or not ratio.median > 0 else 1 / ratio.median


def _faster(of: Callable[[EngineSummary], Ratio | None], best: float | None, engine: EngineSummary) -> Cell:
    ratio = of(engine)
    if ratio is None:
        return Cell()
    quartiles = "" if math.isnan(ratio.low) else f", {ratio.low:.2f} to {ratio.high:.2f}"
    detail = f"{figure(ratio.median, '.2f')}x the time{quartiles}"
    return Cell(ratio.in_words, detail, bar=fraction(_speedup(ratio), best))


def _notes(summary: Summary) -> tuple[str, ...]:
    notes = ["Below agreement and loss stand the ends of their 95% intervals, by bootstrap over the images."]
    if all(each.median_ms is None for each in summary.engines):
        return (*notes, _NOT_TIMED)
    height, width = summary.shape
    rounds = "" if summary.rounds is None else f" over {summary.rounds} rounds, in each of which every engine ran"
    notes.append(f"Times are for one image of {height}x{width}{rounds}; beside a ratio stand its quartiles.")
    if summary.conditions is not None:
        where = "" if summary.gpu is None else f"{summary.gpu}; "
        notes.append(f"Measured on: {where}{summary.conditions}.")
    return tuple(notes)
