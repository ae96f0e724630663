"""Nets in PyTorch, ONNX Runtime and TensorRT's libraries on a GPU: results compared, times measured."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.diagnostics.checkup import check_up
from fcn_deploy.errors import FcnDeployError
from fcn_deploy.evaluation.latency import BenchmarkConfig, Timing, time_in_turn
from fcn_deploy.evaluation.parity import Output as Result
from fcn_deploy.evaluation.parity import ParityTally
from fcn_deploy.files import write_json
from gpu_cases import Case, Net, cases, make_net
from gpu_runners import Runner, transfer_ms


def compare(
    nets: Sequence[str],
    shape: ImageShape,
    backends: Collection[str],
    config: BenchmarkConfig,
    output: Path,
    *,
    compiled: bool,
    smoke: bool,
) -> bool:
    """Runs nets in every library that is there.

    Args:
        nets: `demo`, or widths of an FCN-8s of random weights.
        shape: Of the batch of images.
        backends: The libraries; all if empty.
        config: How they are timed.
        output: The JSON file to write.
        compiled: Whether torch.compile is tried, too.
        smoke: Whether PyTorch and ONNX Runtime run on the CPU, and a few images will do.

    Returns:
        Whether anything ran, on a GPU if it is not for smoke.
    """
    torch.backends.cudnn.benchmark = True  # the others look for the fastest kernels, too
    report: dict[str, Any] = {
        "format": 1,
        "smoke": smoke,
        "host": {**check_up().to_json(), "nvidia_smi": _nvidia_smi(), "torch": _torch_facts()},
        "shape": str(shape),
        "warmup_ms": config.warmup,
        "nets": [],
    }
    for name in nets:
        _say(f"net {name}: exporting, calibrating, and the reference on the CPU")
        with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
            net = make_net(name, shape, Path(folder), small=smoke)
            rows: list[Any] = []
            report["nets"].append({"net": name, "width": net.spec.width, "images": len(net.images), "cases": rows})
            chosen = [case for case in cases(net, smoke, compiled) if not backends or case.backend in backends]
            _check(net, chosen, config, rows, functools.partial(write_json, output, report))
        _table(report["nets"][-1], shape)
    ran = [row for findings in report["nets"] for row in findings["cases"] if row["refused"] is None]
    return any(row["on_gpu"] or smoke for row in ran)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _nvidia_smi() -> str | None:
    """GPU, driver, clocks and power as the driver's own tool states them; None where it is not there."""
    query = "name,driver_version,pstate,clocks.max.sm,power.limit,memory.total"
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _torch_facts() -> dict[str, Any]:
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn}


def _check(
    net: Net, chosen: Sequence[Case], config: BenchmarkConfig, rows: list[Any], save: Callable[[], None]
) -> None:
    """Opens, compares and times cases; what each gives goes into a row, and `save` is called before the next."""
    with ExitStack() as opened:
        timed: dict[str, Callable[[], object]] = {}
        for case in chosen:
            _say(f"  {case.name}")
            row = _row(case)
            rows.append(row)
            save()  # a library that ends the process is then the last row
            with _recording(row):
                _build(case, row)
                begin = time.perf_counter()
                runner = case.open()
                opened.callback(_close, runner, row)
                row["open_s"] = time.perf_counter() - begin
                timed.update(_trial(net, case.name, runner, row))
        _measure(timed, config, {row["name"]: row for row in rows})
    save()


def _close(runner: Runner, row: dict[str, Any]) -> None:
    with _recording(row):  # on a GPU that has failed even this does
        runner.close()


def _build(case: Case, row: dict[str, Any]) -> None:
    if case.build is None or case.engine is None:
        return
    if not case.engine.exists():
        begin = time.perf_counter()
        case.build()
        row["build_s"] = time.perf_counter() - begin
    row["engine_bytes"] = case.engine.stat().st_size


_MEASURED = (
    *("build_s", "engine_bytes", "open_s", "parity"),
    *("end_to_end_ms", "resident_ms", "to_gpu_ms", "from_gpu_ms"),
    *("refused", "traceback"),
)


def _row(case: Case) -> dict[str, Any]:
    facts = {key: getattr(case, key) for key in ("name", "backend", "precision", "output", "setting", "on_gpu")}
    return {**facts, **dict.fromkeys(_MEASURED)}


@contextmanager
def _recording(row: dict[str, Any]) -> Iterator[None]:
    """Puts down what a library refuses with, for whatever it says is a finding."""
    try:
        yield
    except Exception as error:
        row["refused"] = f"{type(error).__name__}: {error}"
        if not isinstance(error, FcnDeployError):
            row["traceback"] = traceback.format_exc()  # there may be no second try on that machine
        _say(f"    {' '.join(str(row['refused']).split())}")


def _trial(net: Net, name: str, runner: Runner, row: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Compares with the reference, and returns what is to be timed: from host to host, and on the GPU alone."""
    tally = ParityTally()
    outputs: list[Any] = []
    for begin in range(0, len(net.images), net.shape.batch):
        outputs += [*runner.infer(runner.prepare(net.images[begin : begin + net.shape.batch]))]
    for expected, found in zip(net.expected, outputs, strict=True):
        tally.add(expected, Result(found) if found.ndim == 2 else Result(found.argmax(0), found))
    row["parity"] = asdict(tally.result())
    feed = runner.prepare(net.images[: net.shape.batch])
    timed: dict[str, Callable[[], object]] = {f"{name}/end_to_end_ms": functools.partial(runner.infer, feed)}
    resident = runner.resident(feed)
    if resident is not None:
        resident()
        timed[f"{name}/resident_ms"] = resident
    if row["on_gpu"] and torch.cuda.is_available():
        row["to_gpu_ms"] = transfer_ms(feed.nbytes)[0]
        row["from_gpu_ms"] = transfer_ms(sum(output.nbytes for output in outputs[: net.shape.batch]))[1]
    return timed


def _measure(timed: dict[str, Callable[[], object]], config: BenchmarkConfig, rows: dict[str, Any]) -> None:
    """Times in turn, round by round; one that fails on the way is recorded, and the others go on."""

    def guarded(name: str) -> Callable[[], object]:
        row, run = rows[name.rpartition("/")[0]], timed[name]

        def call() -> None:
            if row["refused"] is None:
                with _recording(row):
                    run()

        return call

    if not timed:
        return
    _say("  measuring")
    for timing in time_in_turn({name: guarded(name) for name in timed}, config):
        name, _, column = timing.name.rpartition("/")
        if rows[name]["refused"] is None:
            rows[name][column] = _latency(timing)


def _latency(timing: Timing) -> dict[str, float]:
    low, high = np.percentile(timing.latencies, [25, 75])
    return {
        "median": timing.median,
        "low": float(low),
        "high": float(high),
        "p99": timing.percentile(99),
        "rounds": len(timing.latencies),
    }


def _table(findings: dict[str, Any], shape: ImageShape) -> None:
    """Prints what ran as a table that a page of documentation can take over, and below it what was refused."""
    _say(f"\nFCN-8s, {findings['net']}, {shape}; milliseconds, medians\n")
    _say("| case | labels alike | SQNR dB | to the GPU | on the GPU | back | end to end |")
    _say("|---|---|---|---|---|---|---|")
    for row in findings["cases"]:
        if row["refused"] is None:
            parity = row["parity"]
            cells = (row["name"], f"{parity['agreement']:.3%}", _number(parity["sqnr"], 1))
            times = (
                _milliseconds(row[column]) for column in ("to_gpu_ms", "resident_ms", "from_gpu_ms", "end_to_end_ms")
            )
            _say(f"| {' | '.join((*cells, *times))} |")
    refused: dict[str, list[str]] = {}
    for row in findings["cases"]:
        if row["refused"] is not None:
            refused.setdefault(row["refused"], []).append(row["name"])
    for words, names in refused.items():
        _say(f"\nrefused: {'; '.join(names)}: {words}")


def _milliseconds(value: Any) -> str:
    return _number(value["median"] if isinstance(value, dict) else value, 3)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
