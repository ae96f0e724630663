"""Tables for the terminal."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from fcn_deploy.artifacts.conditions import Conditions, counted
from fcn_deploy.artifacts.measures import GroundTruth, Ratio
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.artifacts.tuning import Tuning
from fcn_deploy.evaluation.accuracy import Matrix, class_iou, mean_iou
from fcn_deploy.evaluation.latency import LEAST_ROUNDS, Timing, ratio
from fcn_deploy.reporting.units import listed
from fcn_deploy.text import printable

if TYPE_CHECKING:
    from fcn_deploy.artifacts.sensitivity import Sensitivity


class PlainTable(Table):
    """A table whose cells are neither markup nor what a terminal obeys: names of classes and files may hold both.

    A cell of several lines is a Text, made by `lines`.
    """

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Adds a row; a cell that is a string is one line."""
        super().add_row(*(plain(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def plain(text: object) -> Text:
    """Returns text as one line for a table."""
    return Text(printable(text))


def heading(text: object) -> Text:
    """Returns text as the title of a table."""
    return Text(printable(text), style="table.title")


def lines(texts: Iterable[object]) -> Text:
    """Returns texts as one line each, for a cell or a caption."""
    return Text("\n".join(map(printable, texts)))


def new_table(title: str, *columns: str) -> Table:
    """Returns an empty table; the columns after the first are aligned to the right. Nothing in it is markup."""
    table = PlainTable(
        title=heading(title),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        table.add_column(plain(column), justify="right" if index else "left", no_wrap=True)
    return table


def format_ratio(value: Ratio) -> Text:
    """Returns a ratio as a cell, with what it means in words; its quartiles, if there are any, on a second line."""
    quartiles = [] if math.isnan(value.low) else [f"{value.low:.2f}-{value.high:.2f}"]
    return lines((f"{value.median:.2f}x, {value.in_words}", *quartiles))


def benchmark_table(
    timings: Sequence[Timing],
    names: Sequence[str],
    batch: int,
    percentiles: Sequence[float],
    conditions: Conditions | None = None,
) -> Table:
    """Returns a table with a row for each engine.

    Args:
        timings: Of engines that were timed together; the ratios are those to the first.
        names: What to call them, in the same order.
        batch: Images of each run.
        percentiles: Of latency, a column each.
        conditions: That they were measured under.
    """
    shares = [f"p{share:g} ms" for share in percentiles]
    rounds = len(timings[0].latencies)
    enough = rounds >= LEAST_ROUNDS
    title = f"image to labels, {_rounds(rounds)}; time ratios: median{', and quartiles below' if enough else ''}"
    table = new_table(title, "engine", "median ms", *shares, "images/s", f"/ {names[0]}")
    for timing, name in zip(timings, names, strict=True):
        table.add_row(
            name,
            f"{timing.median:.1f}",
            *(f"{timing.percentile(share):.1f}" if enough else "-" for share in percentiles),
            f"{timing.throughput(batch):.2f}",
            format_ratio(ratio(timing, timings[0])),
        )
    notes = [] if conditions is None else [str(conditions)]
    if not enough:
        notes.append(f"percentiles and quartiles take {LEAST_ROUNDS} rounds or more")
    _annotate(table, notes)
    return table


def tuning_table(tuning: Tuning) -> Table:
    """Returns a table with a row for each candidate that was timed: time ratios as median, and quartiles below."""
    threads = "default threads" if tuning.threads is None else counted(tuning.threads, "thread")
    table = new_table(f"image to labels at {tuning.shape}, {threads}", "candidate", "median ms", f"/ {tuning.chosen}")
    for name, milliseconds in tuning.milliseconds.items():
        found = tuning.ratios.get(name)
        table.add_row(name, f"{milliseconds:.1f}", "-" if found is None else format_ratio(found))
    return table


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def _annotate(table: Table, notes: Sequence[str]) -> None:
    """Puts lines below a table."""
    if notes:
        table.caption, table.caption_justify = lines(notes), "left"


def summary_table(summary: Summary) -> Table:
    """Returns a table with a column for PyTorch and one for each engine of a deployment; it fits 80 characters."""
    timed = any(engine.median_ms is not None for engine in summary.engines)
    how = f"image to labels at {summary.shape[0]}x{summary.shape[1]}" if timed else "simulated on the CPU, not timed"
    title = f"{summary.variant}, gates on {summary.calibration['judged']} images; {how}"
    table = new_table(title, "", "PyTorch", *(engine.file for engine in summary.engines))

    def row(name: str | Text, pytorch: str, cell: Callable[[EngineSummary], str | Text]) -> None:
        table.add_row(name, pytorch, *map(cell, summary.engines))

    row("MB", "-", lambda engine: f"{engine.bytes / 1e6:.1f}")
    row("agreement", "reference", _agreement)
    if any(engine.simulated_agreement is not None for engine in summary.engines):
        row("simulated before", "-", lambda engine: _share(engine.simulated_agreement))
    if summary.pytorch_miou is not None:
        row("mIoU", f"{summary.pytorch_miou:.2f}", _miou)
        row(lines(("mIoU drop", "95% interval")), "-", _drop)
    if timed:
        row("ms, median", _ms(summary.pytorch_ms), lambda engine: _ms(engine.median_ms))
    ratios: dict[str, Callable[[EngineSummary], Ratio | None]] = {
        "PyTorch": lambda engine: engine.vs_pytorch,
        "FP32": lambda engine: engine.vs_fp32,
        "FP16": lambda engine: engine.vs_fp16,
    }
    for name, of in ratios.items():
        if any(of(engine) is not None for engine in summary.engines):
            baseline = "1" if name == "PyTorch" else "-"
            row(lines((f"time / {name}", "quartiles")), baseline, functools.partial(_time_over, of))
    row("gate", "-", lambda engine: "passed" if engine.gate.passed else "FAILED")
    notes = [] if summary.ship is None else [str(summary.ship)]
    if summary.conditions is not None and timed:
        gpu = "" if summary.gpu is None else f"{summary.gpu}, "
        notes.append(f"times: {_timed(summary)}{gpu}{summary.conditions}")
    if summary.resumed:
        notes.append(f"taken over from an earlier run: {', '.join(summary.resumed)}")
    notes += [] if summary.truth is None else [describe_truth(summary.truth)]
    notes += [f"warning: {warning}" for warning in summary.warnings]
    _annotate(table, notes)
    return table


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.1f}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.3%}"


def _time_over(of: Callable[[EngineSummary], Ratio | None], engine: EngineSummary) -> str | Text:
    found = of(engine)
    return "-" if found is None else format_ratio(found)


def _timed(summary: Summary) -> str:
    if summary.rounds is None:
        return ""
    few = f" (quartiles take {LEAST_ROUNDS})" if summary.rounds < LEAST_ROUNDS else ""
    return f"{_rounds(summary.rounds)}{few}, "


def describe_truth(truth: GroundTruth) -> str:
    """Returns what the ground truth says, on one line: what is ignored, and which classes never occur."""
    values = f" ({listed(truth.ignored_values)})" if truth.ignored_values else ""
    parts = [f"ground truth: {truth.ignored:.1%} of the pixels ignored{values}"]
    if truth.absent:
        parts.append(f"never occurring: {listed(truth.absent)}")
    if truth.not_understood:
        parts.append(f"values not understood: {listed(truth.not_understood)}")
    return "; ".join(parts)


def _agreement(engine: EngineSummary) -> str:
    parity = engine.parity
    if parity.reference_not_finite or parity.engine_not_finite:
        return "NaN or inf"
    return f"{parity.agreement:.3%}" if parity.measured else "one label"


def _miou(engine: EngineSummary) -> str:
    return "-" if engine.miou is None else f"{engine.miou:.2f}"


def _drop(engine: EngineSummary) -> str | Text:
    drop = engine.miou_drop
    if drop is None:
        return "-"
    points = "not measured" if math.isnan(drop.points) else f"{drop.points:+.2f}"
    interval = "one image: none" if math.isnan(drop.low) else f"{drop.low:+.2f} to {drop.high:+.2f}"
    return lines((points, interval))


def accuracy_table(title: str, classes: Sequence[str], matrix: Matrix, reference: Matrix | None = None) -> Table:
    """Returns a table with a row for each class and one for the means; with a reference also its IoU and the drop.

    Args:
        title: Of the table.
        classes: Names, in the order of the labels.
        matrix: int64 [C, C], rows truth, columns labels.
        reference: The same of a reference, or None.
    """
    columns = ("class", "IoU", "pixels") if reference is None else ("class", "IoU", "pixels", "reference", "drop")
    table = new_table(title, *columns)
    scores = [*class_iou(matrix), float(mean_iou(matrix))]
    against = [None] * len(scores) if reference is None else [*class_iou(reference), float(mean_iou(reference))]
    shares = [*(f"{share:.1%}" for share in matrix.sum(-1) / max(1, matrix.sum())), ""]
    for name, score, share, other in zip((*classes, "mean"), scores, shares, against, strict=True):
        row = [name, _points(score), share]
        table.add_row(*(row if other is None else [*row, _points(other), _points(other - score)]))
    return table


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def sensitivity_table(sensitivity: Sensitivity) -> Table:
    """Returns a table with a row for each layer that can be quantised; it fits 100 characters."""
    height, width = sensitivity.shape
    mix = sensitivity.mix
    title = (
        f"INT8 ({sensitivity.method}) for {sensitivity.target}, {sensitivity.images} images of {height}x{width}: "
        f"agreement {mix.agreement:.3%}, {mix.sqnr:.1f} dB"
    )
    columns = ("GMAC", "float ms", "INT8 ms", "alone", "dB", "all but it", "dB", "damage")
    table = new_table(title, "layer", *columns)
    for layer in sensitivity.layers:
        table.add_row(
            layer.name,
            f"{layer.macs / 1e9:.2f}",
            *("" if time is None else f"{time:.1f}" for time in (layer.float_ms, layer.int8_ms)),
            f"{layer.alone.agreement:.3%}",
            f"{layer.alone.sqnr:.1f}",
            f"{layer.others.agreement:.3%}" if layer.int8 else "float",
            f"{layer.others.sqnr:.1f}" if layer.int8 else "",
            f"{sensitivity.damage(layer):.3%}" if layer.int8 else "",
        )
    return table
