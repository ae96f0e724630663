"""Measures what calibration costs: time on top of plain inference, and peak memory by number of images.

    python tools/calibration_cost.py fcn8s.onnx --size 512x512 --count 10 --count 300

Time: an image is observed and inferred in turn, and the ratio is taken within each pair. Memory: `fcn-deploy
calibrate` on noise, in a process of its own for each count, as the operating system accounts for it. Noise costs what
photographs cost; the ranges it gives are thrown away.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from fcn_deploy.calibration.observer import Observer
from fcn_deploy.cli.options.types import PATH, SizeType
from fcn_deploy.evaluation.latency import BenchmarkConfig, Timing, ratio, time_in_turn
from fcn_deploy.graph.model import load_exported
from fcn_deploy.runtime import Segmenter


@click.command()
@click.argument("model", type=PATH)
@click.option("--size", type=SizeType(), default="512x512", show_default=True)
@click.option("--count", "counts", type=click.IntRange(1), multiple=True, default=(10, 300), show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(5), default=9, show_default=True)
def main(model: Path, size: tuple[int, int], counts: tuple[int, ...], threads: int, rounds: int) -> None:
    """Prints one JSON document."""
    # Before this process grows: to Linux the peak of a process is at least what the one that starts it holds.
    peaks = {count: _peak_megabytes(model, size, count, threads) for count in counts}
    observing, plain = _time(model, size, threads, rounds)
    overhead = ratio(observing, plain)
    report = {
        "size": list(size),
        "threads": threads,
        "time_over_plain_inference": {
            "median": overhead.median,
            "low": overhead.low,
            "high": overhead.high,
            "rounds": rounds,
        },
        "peak_mb": peaks,
    }
    print(json.dumps(report, indent=2))


def _time(model: Path, size: tuple[int, int], threads: int, rounds: int) -> list[Timing]:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    observer = Observer(load_exported(model), threads=threads)
    segmenter = Segmenter(model, threads=threads)
    contestants = {"observe": lambda: observer.add(image), "infer": lambda: segmenter.logits(image)}
    return time_in_turn(contestants, BenchmarkConfig(duration=0, iterations=rounds))


def _peak_megabytes(model: Path, size: tuple[int, int], count: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fcn_deploy", "calibrate", str(model), "--random-calibration"]
        command += ["--calib-size", f"{size[0]}x{size[1]}", "--max-images", str(count), "--threads", str(threads)]
        process = subprocess.Popen(
            [*command, "-o", str(Path(folder, "ranges.json"))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise click.ClickException(f"calibrate exited with {process.returncode}")
        return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
