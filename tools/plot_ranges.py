"""Draws what calibration saw of tensors, and the range each method makes of it.

    python tools/plot_ranges.py ranges.json --tensor relu_3 --tensor relu_7 -o ranges.svg

Without --tensor it lists the tensors that the file knows.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from fcn_deploy.artifacts.ranges import Histogram, Ranges
from fcn_deploy.cli.options.types import PATH
from fcn_deploy.quantization.methods import METHODS, choose

# As many as a panel has room for.
_BARS = 256


@click.command()
@click.argument("ranges", type=PATH)
@click.option("--tensor", "tensors", multiple=True, help="A tensor to draw; repeatable.")
@click.option("--symmetric", is_flag=True, help="Ranges for TensorRT instead of ONNX Runtime.")
@click.option("-o", "--output", type=PATH, help=".svg, .png or .pdf")
def main(ranges: Path, tensors: tuple[str, ...], symmetric: bool, output: Path | None) -> None:
    """Draws tensors of a RANGES file."""
    histograms = Ranges.load(ranges).histograms
    if not tensors:
        for name, histogram in histograms.items():
            click.echo(f"{name}: {histogram.min:.4g} to {histogram.max:.4g}")
        return
    unknown = [name for name in tensors if name not in histograms]
    if unknown:
        raise click.UsageError(f"not in {ranges}: {', '.join(unknown)}")
    if output is None:
        raise click.UsageError("--tensor goes with --output")
    draw({name: histograms[name] for name in tensors}, output, symmetric)


def draw(histograms: dict[str, Histogram], output: Path, symmetric: bool) -> None:
    """Writes a file with one panel a tensor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.6 + 2.2 * len(histograms)), layout="constrained")
    panels = figure.subplots(len(histograms), 1, squeeze=False)[:, 0]
    for panel, (name, histogram) in zip(panels, histograms.items(), strict=True):
        merged = max(1, len(histogram.counts) // _BARS)
        begins = np.arange(0, len(histogram.counts), merged)
        share = np.add.reduceat(histogram.counts, begins) / histogram.counts.sum()
        edges = histogram.edges[[*begins, -1]]
        panel.stairs(np.where(share > 0, share, np.nan), edges, fill=True, color="0.8", baseline=0)
        panel.set_yscale("log")
        for color, method in enumerate(METHODS):
            chosen = choose({name: histogram}, method, symmetric=symmetric)[name]
            for end in (chosen.lo, chosen.hi):
                if end and histogram.edges[0] <= end * 0.999 and end * 0.999 <= histogram.edges[-1]:
                    label = f"{method}: {chosen.lo:.3g} to {chosen.hi:.3g}" if end == chosen.hi else None
                    panel.axvline(end, color=f"C{color}", linestyle=("-", "--", "-.", ":")[color], label=label)
        panel.set_title(name)
        panel.set_ylabel("share of values")
        panel.legend(loc="upper right")
    figure.savefig(output)


if __name__ == "__main__":
    main()
