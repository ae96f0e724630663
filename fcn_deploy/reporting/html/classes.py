"""IoU by class, of PyTorch and of each engine."""

from __future__ import annotations

from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.reporting.html.table import Cell, FigureTable, Row, figure, fraction
from fcn_deploy.reporting.html.verdict import main_engine


def class_table(summary: Summary) -> FigureTable | None:
    """Returns a table with a row for each class; None if the summary has no figures by class."""
    origin, pytorch = summary.origin, summary.pytorch_class_iou
    engines = [each for each in summary.engines if each.class_iou]
    if origin is None or not pytorch or not engines:
        return None
    spec, absent = origin.spec, () if summary.truth is None else summary.truth.absent
    rows = []
    for index, name in enumerate(spec.classes):
        header = Cell(name, "not in the ground truth" if name in absent else "", swatch=spec.palette[index])
        before = pytorch[index]
        cells = [Cell(figure(before, ".2f"), bar=fraction(before, 100))]
        cells += [_cell(each.class_iou[index], before) for each in engines]
        rows.append(Row(header, tuple(cells)))
    columns = (Cell("PyTorch"), *(Cell(each.precision.upper(), each.file) for each in engines))
    return FigureTable("IoU of each class, in points", "class", columns, tuple(rows), _notes(summary))


def _cell(value: float | None, before: float | None) -> Cell:
    change = "" if value is None or before is None else f"{value - before:+.2f}"
    return Cell(figure(value, ".2f"), change, bar=fraction(value, 100))


def _notes(summary: Summary) -> tuple[str, ...]:
    engine = main_engine(summary)
    assert summary.origin is not None
    names = summary.origin.spec.classes
    losses = [
        (before - after, name)
        for before, after, name in zip(summary.pytorch_class_iou, engine.class_iou, names, strict=False)
        if before is not None and after is not None
    ]
    notes = ["Below a figure stands the difference to PyTorch."]
    loss, name = max(losses, default=(0.0, ""))
    if loss > 0:
        notes.insert(0, f"{engine.file} loses the most on {name}: {loss:.2f} points.")
    return tuple(notes)
