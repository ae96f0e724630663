"""Hashes of what goes into a deployment: files, images and the code of a custom net."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.engine import Engine
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.files import reading, sha256_bytes, sha256_file
from fcn_deploy.runtime.cpu import exact_8_bits
from fcn_deploy.workflows.deploy_config import DeployConfig
from fcn_deploy.workflows.net_options import NetOptions
from fcn_deploy.workflows.samples import LabelMapping, TruthOptions

# Another number whenever more is measured than before: what an earlier run has kept is then measured anew.
_MEASURES = 2

# Folders of installed packages, whose code changes with their versions.
_INSTALLED = {"site-packages", "dist-packages"}


def net_inputs(weights: Path, options: NetOptions) -> dict[str, Any]:
    """Returns what an exported net depends on, by the names of the parameters.

    Raises:
        InputError: A file cannot be read.
    """
    asked = options.asked()
    asked["weights"] = sha256_file(weights)
    if options.class_names is not None:
        asked["class_names"] = _content(Path(options.class_names))
    if options.model is not None:
        asked["model"] = [options.model, code_hash(options.model)]
    return asked


def images_hash(images: ImageFolder | None) -> str | None:
    """Returns the hash of the names, contents and size of images; None if there are none.

    Raises:
        InputError: One cannot be read.
    """
    return None if images is None else _hash(images.paths, str(images.size))


def engine_inputs(
    precision: str, model: str, ranges: Ranges | None, decided_on: ImageFolder | None, config: DeployConfig
) -> dict[str, Any]:
    """Returns what an engine depends on, `model` being the hash of the exported model.

    Raises:
        InputError: An image cannot be read.
    """
    inputs = {"exported model": model, "io": config.io, "target_cpu": config.target_cpu, "kind of CPU": exact_8_bits()}
    inputs["backend"] = config.backend
    if precision not in ("fp16", "int8"):
        return inputs
    seen = {"set of ranges": None if ranges is None else ranges.sha256}
    if precision == "fp16":
        return {**inputs, **seen}
    seen["set of images to decide on"] = images_hash(decided_on)
    return {**inputs, **seen, "calib_method": config.calib_method}


def measured_inputs(
    engines: Mapping[str, Engine],
    net: Mapping[str, Any],
    judged: ImageFolder,
    truth: TruthOptions | None,
    timing: BenchmarkConfig,
    conditions: Conditions,
) -> dict[str, Any]:
    """Returns what the measures of engines depend on; gates and percentiles are made of them afterwards.

    Args:
        engines: By precision.
        net: What `net_inputs` gave for PyTorch's net.
        judged: The images to verify on.
        truth: Their ground truth, or None.
        timing: How long times are measured.
        conditions: That they are measured under; the load is another each time.

    Raises:
        InputError: A file is missing or cannot be read.
    """
    inputs: dict[str, Any] = {f"{name} engine": sha256_bytes(engine.data) for name, engine in engines.items()}
    inputs["kind of measures"] = _MEASURES
    inputs |= {**net, "set of images to verify on": images_hash(judged), "labels": None}
    inputs |= {"kind of CPU": conditions.cpu, "number of cores": conditions.cores, "threads": conditions.threads}
    inputs |= {"warmup": timing.warmup, "duration": timing.duration, "iterations": timing.iterations}
    if truth is not None:
        inputs |= {"labels": _hash(truth.files(judged)), "label_map": label_map_input(truth.label_map)}
        inputs["ignore_index"] = truth.ignore_index
    return inputs


def code_hash(model: str) -> str | None:
    """Returns the hash of the Python files that make a custom net; None if they are not found.

    Those of the package that `model` names; of a module that is in no package, also those beside it; and those that
    they import, unless they are installed. Nothing is run.

    Args:
        model: `package.module:callable`; the current folder is searched first.
    """
    waiting, known = [model.partition(":")[0].partition(".")[0]], set[str]()
    files: set[Path] = set()
    while waiting:
        top = waiting.pop()
        if top in known or top in sys.stdlib_module_names:
            continue
        known.add(top)
        code, installed = _code(top)
        if not installed:
            waiting += [name for path in code - files for name in _imported(path)]
        if not installed or len(known) == 1:
            files |= code
    return _hash(sorted(files)) if files else None


def _code(top: str) -> tuple[set[Path], bool]:
    """Returns the Python files of a package, or of a module and those beside it, and whether they are installed."""
    found = PathFinder.find_spec(top, [str(Path.cwd()), *filter(None, sys.path)])
    if found is None:
        return set(), False
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    if not folders and found.origin is not None:
        folders = [Path(found.origin).parent]
        files = list(folders[0].glob("*.py"))
    installed = any(_INSTALLED & {*folder.parts} for folder in folders)
    return {path for path in files if path.is_file()}, installed


def _imported(path: Path) -> Iterator[str]:
    """Yields the names at the top of what a Python file imports; none if it cannot be read as Python."""
    with reading(path):
        content = path.read_bytes()
    try:
        with warnings.catch_warnings():  # of the user's code, which is not run
            warnings.simplefilter("ignore")
            tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def label_map_input(label_map: LabelMapping | None) -> Any:
    """Returns what the meaning of ground truth depends on: the pairs of a map, or the hash of its file."""
    if isinstance(label_map, Mapping):
        return [[str(left), str(right)] for left, right in label_map.items()]
    if label_map is None:
        return None
    path = Path(label_map)
    # Not Path.exists: pairs may be longer than a name can be.
    return _content(path) if os.access(path, os.F_OK) else os.fspath(label_map)


def _content(path: Path) -> str:
    """Returns the hash of a file; of a pipe, which can be read once only, a text that is another each time."""
    return sha256_file(path) if path.is_file() else f"unknown, {time.time_ns()}"


def _hash(paths: Iterable[Path], *more: str) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{sha256_file(path)}\0".encode(errors="surrogateescape"))
    for each in more:
        digest.update(each.encode())
    return digest.hexdigest()
