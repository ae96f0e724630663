"""The finished stages of a deployment: kept until it has ended well, and taken over by `deploy(resume=True)`.

Each stage has a folder of its own within the hidden folder `FOLDER` of the output: what the stage made, and a record
with the hash of each of its files and of everything that went into it. The record is written last, so that a stage
without one was not finished.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.engines.engine import Engine, load_engine
from fcn_deploy.errors import FcnDeployError, InputError
from fcn_deploy.files import make_folder, read_bytes, read_json, sha256_file, write_bytes, write_json
from fcn_deploy.progress import Progress
from fcn_deploy.workflows.measured import Measured

if TYPE_CHECKING:
    from typing_extensions import Self

    from fcn_deploy.graph.model import ExportedModel

FOLDER = ".fcn-deploy"
_FORMAT = 1
_RECORD = "stage.json"
# What the results depend on beside this package and the inputs.
_LIBRARIES = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxruntime-gpu", "onnxsim", "openvino", "pillow", "torch")

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """How the result of a stage is kept.

    Attributes:
        save: Writes it into a folder.
        load: Reads it from there.
    """

    save: Callable[[T, Path], None]
    load: Callable[[Path], T]


class Stages:
    """The stages of one deployment; a context that removes what it kept when the deployment has ended well.

    If the body raises, what is finished stays, and the error says how to take it over.

    Args:
        output: The output folder, which exists when the context begins.
        resume: Whether stages of an earlier run are taken over; else they are removed when the context begins.
        progress: Told which stages are taken over, and why others are not.

    Attributes:
        taken: The names of the stages that were taken over, in order.
    """

    def __init__(self, output: Path, *, resume: bool, progress: Progress) -> None:
        self._folder, self._resume, self._progress = output / FOLDER, resume, progress
        self.taken: list[str] = []
        self._finished: list[str] = []

    def __enter__(self) -> Self:
        if self._folder.is_symlink() or (self._folder.exists() and not self._folder.is_dir()):
            raise InputError(f"cannot keep stages in {self._folder}", got="something else", fix="remove it")
        there = self._folder.is_dir()
        if there and not self._resume:
            self._remove()
            self._progress.stage(f"removed the stages that an earlier run kept in {self._folder}")
        if self._resume and not there:
            self._progress.stage(f"nothing to take over: an earlier run kept no stages in {self._folder}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._remove()
            return
        finished = ", ".join(self._finished)
        if not finished:
            return
        if isinstance(error, FcnDeployError):
            error.advise(f"to take over what is finished ({finished}), add `resume=True`")
        else:
            self._progress.stage(f"kept what is finished ({finished}) in {self._folder}: `resume=True` takes it over")

    def run(self, name: str, inputs: Mapping[str, Any], kind: Kind[T], make: Callable[[], T]) -> T:
        """Returns the result of a stage: an earlier run's if the same went into it, else a new one, which is kept.

        Args:
            name: Of the stage.
            inputs: All that the result depends on, as JSON data, by what the user calls it: the name of a parameter,
                or words with spaces.
            kind: How the result is kept.
            make: Makes it.

        Raises:
            InputError: The result cannot be written.
        """
        folder, inputs = self._folder / name, {**_versions(), **inputs}
        inputs = json.loads(json.dumps(inputs, default=str))  # as they will be read: tuples are lists then
        if self._resume:
            found = self._earlier(name, folder, inputs, kind)
            if found is not None:
                self.taken.append(name)
                self._finished.append(name)
                self._progress.stage(f"{name}: taken over from the earlier run")
                return found
        shutil.rmtree(folder, ignore_errors=True)
        result = make()
        try:
            make_folder(folder)
            kind.save(result, folder)
            files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
            write_json(folder / _RECORD, {"format": _FORMAT, "stage": name, "inputs": inputs, "files": files})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # half a stage is of no use, and may have filled the disk
            if not self._finished:
                self._remove()
            raise
        self._finished.append(name)
        return result

    def _earlier(self, name: str, folder: Path, inputs: Mapping[str, Any], kind: Kind[T]) -> T | None:
        """Returns what an earlier run kept of a stage; None, with the reason told, if that cannot be taken over."""
        if not (folder / _RECORD).is_file():
            return None
        try:
            record = read_json(folder / _RECORD)
            before, files = dict(record["inputs"]), dict(record["files"])
            if record["format"] != _FORMAT or not files:
                raise InputError("another format")
            damaged = [file for file, sha256 in files.items() if sha256_file(folder / file) != sha256]
        except (FcnDeployError, KeyError, TypeError, ValueError, AttributeError):
            damaged, before = [_RECORD], dict(inputs)
        changed = [key for key in {**before, **inputs} if before.get(key) != inputs.get(key)]
        if damaged:
            self._progress.stage(f"{name}: done anew, because {', '.join(damaged)} of the earlier run is damaged")
        elif changed:
            shown = ", ".join(key if " " in key else f"`{key}`" for key in changed)
            self._progress.stage(f"{name}: done anew, because of another {shown}")
        else:
            return kind.load(folder)
        return None

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _save_model(model: ExportedModel, folder: Path) -> None:
    model.save(folder / "model.onnx")
    write_json(folder / "error.json", model.error)


def _load_model(folder: Path) -> ExportedModel:
    from fcn_deploy.graph.model import load_exported

    return replace(load_exported(folder / "model.onnx"), error=read_json(folder / "error.json"))


def _save_engine(engine: Engine, folder: Path) -> None:
    engine.save(folder / "engine.onnx")


def _save_measured(measured: Measured, folder: Path) -> None:
    # Not by write_json: infinite and NaN figures have to be the same when they are read.
    write_bytes(folder / "measured.json", json.dumps(measured.to_json()).encode())


def _load_measured(folder: Path) -> Measured:
    return Measured.from_json(json.loads(read_bytes(folder / "measured.json")))


MODEL: Kind[ExportedModel] = Kind(_save_model, _load_model)
RANGES: Kind[Ranges] = Kind(
    lambda ranges, folder: ranges.save(folder / "ranges.json"), lambda folder: Ranges.load(folder / "ranges.json")
)
ENGINE: Kind[Engine] = Kind(_save_engine, lambda folder: load_engine(folder / "engine.onnx"))
MEASURED: Kind[Measured] = Kind(_save_measured, _load_measured)


@functools.cache
def _versions() -> dict[str, str]:
    found = {"version of fcn_deploy": __version__}
    for library in _LIBRARIES:
        try:
            found[f"version of {library}"] = version(library)
        except PackageNotFoundError:
            continue
    return found
