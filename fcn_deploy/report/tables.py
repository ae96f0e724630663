"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from fcn_deploy.evaluate.accuracy import Matrix, class_iou, mean_iou
from fcn_deploy.evaluate.benchmark import Ratio, Timing, ratio
from fcn_deploy.report.units import scaled

if TYPE_CHECKING:
    from fcn_deploy.planning.sensitivity import Sensitivity
    from fcn_deploy.summary import EngineResult, Summary

# So that a layer fits into a line of 80 characters.
_SHORT = {"ConvTranspose": "Deconv"}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def format_ratio(value: Ratio) -> str:
    """Formats a ratio, with its quartiles below."""
    return f"{value.median:.2f}x\n{value.low:.2f}-{value.high:.2f}"


def benchmark_table(timings: Sequence[Timing], names: Sequence[str], batch: int, percentiles: Sequence[float]) -> Table:
    """Returns a row for each contestant; ratios are against the first."""
    shares = [f"p{share:g} ms" for share in percentiles]
    title = f"image to labels, {len(timings[0].latencies)} rounds; time ratios: median, and quartiles below"
    table = _table(title, "engine", "median ms", *shares, "images/s", f"/ {names[0]}")
    for timing, name in zip(timings, names, strict=True):
        table.add_row(
            name,
            f"{timing.median:.1f}",
            *(f"{timing.percentile(share):.1f}" for share in percentiles),
            f"{timing.throughput(batch):.2f}",
            format_ratio(ratio(timing, timings[0])),
        )
    return table


def summary_table(summary: Summary) -> Table:
    """Returns a column for PyTorch and one for each engine of a deployment, few enough for 80 characters."""
    size = f"{summary.shape[0]}x{summary.shape[1]}"
    title = f"{summary.variant}, judged on {summary.calibration['judged']} images; image to labels at {size}"
    table = _table(title, "", "PyTorch", *(engine.file for engine in summary.engines))

    def row(name: str, pytorch: str, cell: Callable[[EngineResult], str]) -> None:
        table.add_row(name, pytorch, *map(cell, summary.engines))

    row("MB", "-", lambda engine: f"{engine.size / 1e6:.1f}")
    row("agreement", "reference", lambda engine: f"{engine.assessment.parity.agreement:.3%}")
    if summary.pytorch_miou is not None:
        row("mIoU", f"{summary.pytorch_miou:.2f}", _miou)
        row("mIoU drop\n95% interval", "-", _drop)
    row("ms, median", f"{summary.pytorch.median:.1f}", lambda engine: f"{engine.timing.median:.1f}")
    fp32 = summary.engines[0].timing
    row("time / PyTorch\nquartiles", "1", lambda engine: format_ratio(ratio(engine.timing, summary.pytorch)))
    row("time / FP32\nquartiles", "-", lambda engine: format_ratio(ratio(engine.timing, fp32)))
    row("gate", "-", lambda engine: "passed" if engine.verdict.gate.passed else "FAILED")
    return table


def _miou(engine: EngineResult) -> str:
    confusion = engine.assessment.confusion
    return "-" if confusion is None else f"{float(mean_iou(confusion.sum(0))):.2f}"


def _drop(engine: EngineResult) -> str:
    drop = engine.assessment.drop
    return "-" if drop is None else f"{drop.points:+.2f}\n{drop.low:+.2f} to {drop.high:+.2f}"


def accuracy_table(title: str, classes: Sequence[str], matrix: Matrix, reference: Matrix | None = None) -> Table:
    """Returns a row for each class and the means; with a reference its IoU and the difference.

    Args:
        title: Of the table.
        classes: Names, in the order of the labels.
        matrix: int64 [C, C], rows truth, columns labels.
        reference: The same of a reference.
    """
    columns = ("class", "IoU", "pixels") if reference is None else ("class", "IoU", "pixels", "reference", "drop")
    table = _table(title, *columns)
    scores = [*class_iou(matrix), float(mean_iou(matrix))]
    against = [None] * len(scores) if reference is None else [*class_iou(reference), float(mean_iou(reference))]
    shares = [*(f"{share:.1%}" for share in matrix.sum(-1) / max(1, matrix.sum())), ""]
    for name, score, share, other in zip((*classes, "mean"), scores, shares, against, strict=True):
        row = [name, _points(score), share]
        table.add_row(*(row if other is None else [*row, _points(other), _points(other - score)]))
    return table


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def detail_table(facts: Mapping[str, Any]) -> Table | None:
    """Returns the table of what `inspect` found inside a file: layers, their precisions, or tensors; None if none."""
    if facts.get("layers"):
        return _layer_table(facts)
    if facts.get("precisions"):
        return _precision_table(facts["precisions"])
    if facts.get("tensors"):
        return _range_table(facts["tensors"]) if facts["kind"] == "ranges" else _tensor_table(facts["tensors"])
    return None


def _layer_table(facts: Mapping[str, Any]) -> Table:
    shape = facts["shape"]
    title = "layers" if shape is None else f"layers, for images of {_by(shape)}"
    table = _table(title, "layer", "type", "weights", "output", "params", "MACs", "share", "in")
    _fold_names(table)
    table.padding, table.show_edge = 0, False  # its eight columns fit into 80 characters, but only just
    for column in table.columns[1:4]:
        column.justify = "left"
    for layer in facts["layers"]:
        output, macs, total = layer["output"], layer["macs"], facts["macs"]
        table.add_row(
            Text(layer["name"]),
            _SHORT.get(layer["op"], layer["op"]),
            _by(layer["weights"]),
            "?" if output is None else _by(output),
            scaled(layer["parameters"]),
            "?" if macs is None else scaled(macs, "MAC"),
            "?" if not total else f"{macs / total:.1%}",
            layer["precision"],
        )
    table.add_section()
    macs = "?" if facts["macs"] is None else scaled(facts["macs"], "MAC")
    table.add_row("total", "", "", "", scaled(facts["parameters"]), macs, "", "")
    return table


def _tensor_table(tensors: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table("tensors", "tensor", "shape", "parameters", "dtype")
    _fold_names(table)
    for name, tensor in tensors.items():
        row = (_by(tensor["shape"]) or "scalar", f"{tensor['parameters']:,}", tensor["dtype"])
        table.add_row(Text(name), *row)
    return table


def _precision_table(precisions: Mapping[str, Mapping[str, str | None]]) -> Table:
    told = any(each["achieved"] for each in precisions.values())
    # In a column of question marks nobody would see that the answer is one and the same for all.
    table = _table("layers", "layer", "asked", *(["achieved"] if told else []))
    _fold_names(table)
    for name, each in precisions.items():
        table.add_row(Text(name), each["asked"], *([each["achieved"] or "not told"] if told else []))
    return table


def _range_table(tensors: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table("ranges", "tensor", "min", "max", "bins")
    _fold_names(table)
    for name, seen in tensors.items():
        table.add_row(Text(name), f"{seen['min']:.4g}", f"{seen['max']:.4g}", str(seen["bins"]))
    return table


def _fold_names(table: Table) -> None:
    """Leaves room for the numbers: what users call their tensors can be longer than a line."""
    table.columns[0].max_width, table.columns[0].overflow, table.columns[0].no_wrap = 40, "fold", False


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Returns a row for each fact; a mapping or a list among them is spread over lines."""
    table = Table(title=title, box=None, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key, Text(_lines(value)))  # not markup: shapes have brackets
    return table


def _lines(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return "\n".join(_inline(item) for item in value)
    return _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_inline(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def sensitivity_table(sensitivity: Sensitivity) -> Table:
    """Returns a row for each layer that can be quantised, few enough columns for 100 characters."""
    height, width = sensitivity.shape
    mix = sensitivity.mix
    title = (
        f"INT8 ({sensitivity.method}) for {sensitivity.target}, {sensitivity.images} images of {height}x{width}: "
        f"{mix.agreement:.3%} labelled alike, {mix.sqnr:.1f} dB"
    )
    columns = ("GMAC", "float ms", "INT8 ms", "alone", "dB", "all but it", "dB", "damage")
    table = _table(title, "layer", *columns)
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
