"""Tables and the picture of bench_peers.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# The contestant that all are compared with.
BASELINE = "onnxruntime"


def print_times(run: Mapping[str, Any]) -> None:
    """Prints the times of a run as a Markdown table."""
    columns = ("image to labels, ms", f"/ {BASELINE}", "net, ms", f"/ {BASELINE}", "labels alike")
    print(f"| {run['shape']}, {run['threads']} threads | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|")
    for line in _lines(run):
        print(line)
    sys.stdout.flush()


def _lines(run: Mapping[str, Any]) -> Iterator[str]:
    for name, row in run["contestants"].items():
        if row["refused"]:
            yield f"| {name} | {row['refused']} | | | | |"
            continue
        if "whole" not in row:
            yield f"| {name} | simulated | | | | {row['alike']:.3%} |"
            continue
        cells = [
            f"{part['median_ms']:.1f} | {part['ratio']:.2f} ({part['ratio_low']:.2f}-{part['ratio_high']:.2f})"
            for part in (row["whole"], row["net"])
        ]
        yield f"| {name} | {cells[0]} | {cells[1]} | {row['alike']:.3%} |"


def print_fidelity(run: Mapping[str, Any]) -> None:
    """Prints what labels are worth as a Markdown table; nothing if they were not judged."""
    judged = {name: row["fidelity"] for name, row in run["contestants"].items() if row.get("fidelity")}
    if not judged:
        return
    print(
        f"| {run['shape']}, {judged[BASELINE]['images']} images | mIoU | drop, 95% interval | agreement, 95% interval |"
    )
    print("|---|---|---|---|")
    for name, row in judged.items():
        drop, low, high = row["drop"]
        agreement, least, most = (100 * share for share in row["agreement"])
        print(
            f"| {name} | {row['miou']:.2f} | {drop:.2f} ({low:.2f} to {high:.2f}) "
            f"| {agreement:.2f}% ({least:.2f} to {most:.2f}) |"
        )
    sys.stdout.flush()


def plot_times(run: Mapping[str, Any], suffix: str, ours: Sequence[str]) -> bytes:
    """Draws the ratios of a run, each with its quartiles."""
    import io

    from matplotlib.figure import Figure

    rows = [(name, row["whole"]) for name, row in run["contestants"].items() if "whole" in row]
    rows.sort(key=lambda item: -item[1]["ratio"])
    ratios = np.array([part["ratio"] for _, part in rows])
    spread = np.abs(np.array([[part["ratio_low"], part["ratio_high"]] for _, part in rows]).T - ratios)
    figure = Figure(figsize=(8, 0.9 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colors = ["tab:blue" if name in ours else "tab:gray" for name, _ in rows]
    bars = axes.barh([name for name, _ in rows], ratios, xerr=spread, color=colors)
    axes.bar_label(bars, [f" {part['median_ms']:.0f} ms" for _, part in rows])
    axes.margins(x=0.12)
    axes.set_xlabel(f"time / {BASELINE} on the exported model")
    axes.set_title(f"image to labels, {run['shape']}, {run['threads']} threads")
    file = io.BytesIO()
    figure.savefig(file, format=suffix[1:])
    return file.getvalue()
