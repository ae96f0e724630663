"""The layers: what each costs, what it runs in, what INT8 does to it, and the values it has seen."""

from __future__ import annotations

import math

import numpy as np

from fcn_deploy.artifacts.ranges import Histogram, Ranges
from fcn_deploy.artifacts.sensitivity import LayerSensitivity, Sensitivity
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.reporting.html.table import MISSING, Cell, FigureTable, Row, figure, fraction, largest
from fcn_deploy.reporting.units import with_prefix

# How finely the curve of a histogram is drawn, and the share of the values beyond which those at both ends are rare.
_BINS, _RARE = 64, 0.001


def layer_table(summary: Summary) -> FigureTable | None:
    """Returns a table with a row for each layer; None if the summary lists none."""
    costs = {layer.name: layer for layer in summary.layers}
    engines = [each for each in summary.engines if each.layers]
    names = dict.fromkeys((*costs, *(name for each in engines for name in each.layers)))
    if not names:
        return None
    macs = [layer.macs for layer in summary.layers]
    most = largest(macs)
    rows = []
    for name in names:
        layer = costs.get(name)
        cells = [Cell(), Cell(), Cell()]
        if layer is not None:
            output = MISSING if layer.output is None else "x".join(map(str, layer.output))
            cost = MISSING if layer.macs is None else with_prefix(layer.macs, "MAC")
            cells = [
                Cell(layer.op, output),
                Cell(with_prefix(layer.parameters)),
                Cell(cost, bar=fraction(layer.macs, most)),
            ]
        rows.append(Row(Cell(name), (*cells, *(Cell(each.layers.get(name, MISSING)) for each in engines))))
    precisions = (Cell(each.precision.upper(), each.file) for each in engines)
    columns = (Cell("type", "output"), Cell("parameters"), Cell("MACs"), *precisions)
    height, width = summary.shape
    known = [each for each in macs if each is not None]
    total = f" All together: {with_prefix(sum(known), 'MAC')}." if known and len(known) == len(macs) else ""
    note = f"Outputs and multiply-adds (MACs) are those of the exported model for an image of {height}x{width}.{total}"
    return FigureTable("What each layer costs, and what it runs in", "layer", columns, tuple(rows), (note,))


def sensitivity_table(found: Sensitivity) -> FigureTable:
    """Returns a table with a row for each layer that can be quantised, the most damaging first."""
    layers = sorted(found.layers, key=lambda layer: -found.damage(layer) if layer.int8 else math.inf)
    timed = all(layer.float_ms is not None and layer.int8_ms is not None for layer in layers)
    lost = largest([1 - layer.alone.agreement for layer in layers])
    regained = largest([layer.others.agreement - found.mix.agreement for layer in layers])
    saved = largest([layer.saving for layer in layers])
    damaged = largest([found.damage(layer) for layer in layers if layer.int8])

    def row(layer: LayerSensitivity) -> Row:
        if layer.int8:
            damage, last = found.damage(layer), layer.others.agreement - found.mix.agreement
            mixed = (_share(damage, damaged), _share(last, regained))
        else:
            mixed = (Cell("float"), Cell("float"))
        saving = f"{layer.saving:.2f}"
        return Row(
            Cell(layer.name),
            (*mixed, _share(1 - layer.alone.agreement, lost), Cell(saving, bar=fraction(layer.saving, saved))),
        )

    height, width = found.shape
    return FigureTable(
        caption="Pixels that INT8 relabels, by layer",
        corner="layer",
        columns=(
            Cell("damage", "mean of the next two"),
            Cell("regained", "if all but it is INT8"),
            Cell("alone", "if only it is INT8"),
            Cell("saved by INT8", "ms" if timed else "GMAC"),
        ),
        rows=tuple(map(row, layers)),
        notes=(
            f"Measured on {found.images} images, of which the first has {height}x{width}, against the net without INT8;"
            f" ranges by {found.method}, for {found.target}. With all its INT8 layers the agreement is "
            f"{figure(found.mix.agreement, '.3%')}.",
        ),
    )


def _share(value: float, whole: float | None) -> Cell:
    return Cell(figure(value, ".3%"), bar=fraction(value, whole))


def range_table(ranges: Ranges) -> FigureTable:
    """Returns a table with a row for each tensor: what calibration saw, and how its values are spread."""
    rows = tuple(Row(Cell(name), _range(histogram)) for name, histogram in ranges.histograms.items())
    return FigureTable(
        caption=f"Values that {ranges.data.count} images gave each tensor",
        corner="tensor",
        columns=(Cell("smallest"), Cell("largest"), Cell(f"{1 - _RARE:.1%} within"), Cell("how often", "log scale")),
        rows=rows,
        notes=(
            "A curve runs from the smallest to the largest value, or to 0. A long flat end means rare values far out: "
            "INT8 has 256 steps for all of it, so a method that clips them keeps the others finer.",
        ),
    )


def _range(histogram: Histogram) -> tuple[Cell, ...]:
    low, high = _usual(histogram)
    within = f"{low:.4g} to {high:.4g}"
    return (
        Cell(f"{histogram.min:.4g}"),
        Cell(f"{histogram.max:.4g}"),
        Cell(within),
        Cell("", curve=_curve(histogram)),
    )


def _usual(histogram: Histogram) -> tuple[float, float]:
    """Returns the ends of the bins that hold all but the rare values, half of which are at either end."""
    seen = np.cumsum(histogram.counts, dtype=np.float64)
    first = int(np.searchsorted(seen, seen[-1] * _RARE / 2, "right"))
    last = int(np.searchsorted(seen, seen[-1] * (1 - _RARE / 2)))
    edges = histogram.edges
    return float(max(edges[first], histogram.min)), float(min(edges[min(last, len(edges) - 2) + 1], histogram.max))


def _curve(histogram: Histogram) -> tuple[float, ...]:
    parts = min(_BINS, len(histogram.counts))
    begins = np.arange(parts) * len(histogram.counts) // parts
    heights = np.log1p(np.add.reduceat(histogram.counts.astype(np.float64), begins))
    return tuple(np.round(heights / heights.max(), 2).tolist())
