"""Runs the checks of `cuda_checks` on the first GPU, and writes what they found."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cuda_checks import CHECKS, lab, run_check
from fcn_deploy.files import write_json
from fcn_deploy.runtime.tensorrt.driver import find_gpus

_PACKAGES = ("cuda-core", "cuda-bindings", "numpy", "torch", "cupy-cuda13x", "cupy-cuda12x")


def check(output: Path, share: float, only: Collection[str] = ()) -> bool:
    """Runs checks, one after the other; each result is written before the next.

    Args:
        output: The JSON file.
        share: Of all repetitions, 0..1.
        only: Their names; all if empty.

    Returns:
        Whether all of them passed.

    Raises:
        SystemExit: There is no such check.
    """
    unknown = sorted(set(only) - set(CHECKS))
    if unknown:
        raise SystemExit(f"no such check: {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    gpu = find_gpus()[0]
    rows: list[dict[str, Any]] = []
    report = {
        "format": 1,
        "gpu": vars(gpu),
        "driver": _driver(),
        "packages": _versions(),
        "share": share,
        "checks": rows,
    }
    with tempfile.TemporaryDirectory(prefix="cuda-check-") as folder, lab(Path(folder), share) as place:
        for name in only or CHECKS:
            row: dict[str, Any] = {"name": name, "passed": None, "seconds": None, "figures": {}, "error": None}
            rows.append(row)
            write_json(output, report)  # a check that ends the process is then the last one
            begin = time.perf_counter()
            try:
                row["figures"] = run_check(name, place)
                row["passed"] = True
            except Exception as error:
                row["passed"], row["error"] = False, f"{type(error).__name__}: {error}"
                traceback.print_exc()
            row["seconds"] = round(time.perf_counter() - begin, 2)
            _print(row)
            write_json(output, report)
    failed = [row["name"] for row in rows if not row["passed"]]
    print(f"{gpu.name}: {len(rows) - len(failed)} of {len(rows)} checks passed", file=sys.stderr, flush=True)
    return not failed


def _print(row: dict[str, Any]) -> None:
    verdict = "passed" if row["passed"] else "FAILED"
    print(f"{verdict}  {row['seconds']:7.2f} s  {row['name']}", file=sys.stderr, flush=True)
    for name, value in row["figures"].items():
        print(f"                     {name}: {value}", file=sys.stderr, flush=True)


def _driver() -> str:
    from cuda.bindings import driver

    _, number = driver.cuDriverGetVersion()
    return f"CUDA {number // 1000}.{number % 1000 // 10}"


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
