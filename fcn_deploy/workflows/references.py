"""Opens what is run and compared with: engines, exported models and checkpoints, as files or as objects."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, Union

from fcn_deploy.artifacts.geometry import AutoPadding, Padding
from fcn_deploy.artifacts.outputs import Outputs
from fcn_deploy.artifacts.sidecar import Sidecar, find_sidecar, load_sidecar
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.engines.checks import ONNXRUNTIME, OPENVINO
from fcn_deploy.engines.engine import Engine
from fcn_deploy.errors import UsageError
from fcn_deploy.files import StrPath, as_path, is_file, real_path, sha256_bytes, sha256_file
from fcn_deploy.graph.header import check_onnx_file
from fcn_deploy.models.spec_options import net_name
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.backend import Backend
from fcn_deploy.runtime.open import check_engine_path, open_in_onnxruntime
from fcn_deploy.runtime.options import Kind, RuntimeOptions, kind_of
from fcn_deploy.workflows.parameters import input_file, weights_file

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from fcn_deploy.graph.model import ExportedModel
    from fcn_deploy.models.load import Net
    from fcn_deploy.runtime.openvino.backend import OpenVinoBackend

# Before the path of a checkpoint that is to run in PyTorch.
PYTORCH = "pytorch:"

_KINDS: dict[str, Kind] = {ONNXRUNTIME: "onnx", OPENVINO: "openvino"}

Runnable: TypeAlias = Union[StrPath, Engine, "ExportedModel"]


@dataclass(frozen=True)
class NetCode:
    """What makes the net of a checkpoint that is not one of the published nets.

    Attributes:
        model: `package.module:callable`; None for the published nets.
        padding: How images are padded for that net, if no engine beside it states that.
        outputs: What is taken from what that net returns, if no engine beside it states that.
        weights_key: The entry of the checkpoint that holds the weights, as for `export`.
        weights_prefix: The prefix of its tensors.
        weights_ignore: What is left out of it.
    """

    model: str | None = None
    padding: Padding | AutoPadding | None = None
    outputs: Outputs | None = None
    weights_key: str | None = None
    weights_prefix: str | None = None
    weights_ignore: Sequence[str] | str = ()


@contextmanager
def opened(
    runnables: Sequence[Runnable],
    options: RuntimeOptions | None = None,
    code: NetCode | None = None,
    progress: Progress | None = None,
    reference: Runnable | None = None,
) -> Iterator[list[Segmenter]]:
    """Opens engines, exported models and checkpoints, and closes them afterwards.

    Checkpoints are opened last, with the spec of the first engine or model, which has the normalisation that the user
    stated. An engine that is named twice is opened once.

    Args:
        runnables: Paths, `pytorch:` and the path of a checkpoint, engines or exported models.
        options: How and where they run; each takes those options that are for its kind.
        code: What makes the net of the checkpoints among them.
        progress: Told of checkpoints, which take long to open.
        reference: Which of them the others are compared with: it computes without `fast_math`.

    Yields:
        One segmenter each, in their order.

    Raises:
        ArtifactError: An engine does not fit this machine or its sidecar.
        DependencyError: A library, the provider, a driver or the GPU is missing.
        InputError: A file cannot be read, or a checkpoint has other classes than the spec.
        UsageError: None of them takes an option; or a checkpoint needs `model`, or `model` is for no checkpoint.
    """
    options, code = options or RuntimeOptions(), code or NetCode()
    check_runnables(runnables, options, code)
    segmenters: dict[object, Segmenter] = {}
    with ExitStack() as stack:
        for runnable in sorted(runnables, key=is_checkpoint):
            if key_of(runnable) not in segmenters:
                first = next(iter(segmenters.values()), None)
                told = progress if progress is not None and is_checkpoint(runnable) else Silent()
                with told.working(f"opening {name_of(runnable)}"):
                    own = options.for_kind(_kind(runnable))
                    if reference is not None and key_of(runnable) == key_of(reference):
                        own = replace(own, fast_math=False)
                    segmenter = _open(runnable, own, code, first)
                segmenters[key_of(runnable)] = stack.enter_context(segmenter)
        yield [segmenters[key_of(runnable)] for runnable in runnables]


def check_runnables(
    runnables: Sequence[Runnable], options: RuntimeOptions, code: NetCode
) -> tuple[Sidecar | None, ...]:
    """Checks what `opened` can check from names and first bytes, before any library is imported that runs nets.

    Returns:
        The sidecar of each; None for a model, a checkpoint, or an engine without a sidecar.

    Raises:
        ArtifactError: A sidecar is malformed, or describes another file.
        DependencyError: There is a checkpoint, and torch is not installed.
        InputError: A file cannot be read, or is plainly something else.
        UsageError: None of them takes an option; or `model` is for no checkpoint.
    """
    _check_code(runnables, code)
    options.check_taken([(name_of(each), _kind(each)) for each in runnables])
    return tuple(map(_check_runnable, runnables))


def _check_runnable(runnable: Runnable) -> Sidecar | None:
    if isinstance(runnable, Engine):
        return runnable.sidecar
    if not isinstance(runnable, str | os.PathLike):
        return None
    if is_checkpoint(runnable):
        weights_file(os.fspath(runnable).removeprefix(PYTORCH))
        return None
    path = as_path(runnable)
    # As when it is opened, the sidecar comes first: it may say that the file is another.
    sidecar = load_sidecar(path) if is_file(path) and find_sidecar(path) else None
    if check_engine_path(path) != "plan":
        check_onnx_file(path)
    return sidecar


def name_of(runnable: Runnable) -> str:
    """Returns what to call something in a table: its path, or what it is.

    Raises:
        UsageError: It is neither a path nor anything that runs.
    """
    if isinstance(runnable, Engine):
        return f"{runnable.sidecar.spec.variant}, {runnable.sidecar.precision.requested}"
    if _is_exported(runnable):
        return f"{runnable.spec.variant}, exported"
    if not isinstance(runnable, str | os.PathLike):
        raise UsageError("bad engine", got=repr(runnable), expected="a file, or what build_engine or export gave")
    return os.fspath(runnable)


def check_not_itself(engine: Runnable, reference: Runnable) -> None:
    """Checks that something is not compared with itself, which every engine would pass.

    Raises:
        InputError: A file cannot be read.
        UsageError: Both are the same path, the same object, or have the same content.
    """
    same = engine is reference or _resolved(engine) == _resolved(reference) or _same_content(engine, reference)
    if same:
        raise UsageError(
            "an engine cannot be its own reference",
            got=f"{name_of(engine)} and {name_of(reference)}, which have the same content",
            expected="what the engine was made from",
            fix="name the exported model as `reference`, or pytorch: and the path of the checkpoint",
        )


def _resolved(runnable: Runnable) -> object:
    if not isinstance(runnable, str | os.PathLike):
        return id(runnable)
    path = os.fspath(runnable).removeprefix(PYTORCH)
    return real_path(as_path(path))


def _same_content(engine: Runnable, reference: Runnable) -> bool:
    sizes, hashes = [], []
    for each in (engine, reference):
        if isinstance(each, Engine):
            content: bytes | Path = each.data
        elif _is_exported(each):
            content = each.content
        else:
            content = as_path(os.fspath(each).removeprefix(PYTORCH))
            if not is_file(content):
                return False  # what is wrong with it is said when it is opened
        sizes.append(len(content) if isinstance(content, bytes) else content.stat().st_size)
        hashes.append(content)
    if sizes[0] != sizes[1]:
        return False
    first, second = (sha256_bytes(each) if isinstance(each, bytes) else sha256_file(each) for each in hashes)
    return first == second


def is_checkpoint(runnable: Runnable) -> bool:
    """Returns whether something is a checkpoint to be run in PyTorch."""
    return isinstance(runnable, str | os.PathLike) and os.fspath(runnable).startswith(PYTORCH)


def _is_exported(runnable: Runnable) -> TypeIs[ExportedModel]:
    # An object of this class exists only after its module was imported, which needs onnx: a device does not have it.
    module: ModuleType | None = sys.modules.get("fcn_deploy.graph.model")
    return module is not None and isinstance(runnable, module.ExportedModel)


def key_of(runnable: Runnable) -> object:
    """Returns what two of them share if they are the same: a path, or the object itself."""
    return os.fspath(runnable) if isinstance(runnable, str | os.PathLike) else id(runnable)


def _check_code(runnables: Sequence[Runnable], code: NetCode) -> None:
    if code.model is not None and not any(map(is_checkpoint, runnables)):
        raise UsageError("`model` makes the net of a checkpoint", got="no pytorch:CHECKPOINT", fix="leave it out")
    if code.model is not None:
        net_name(code.model)
    given = {
        "weights_key": code.weights_key,
        "weights_prefix": code.weights_prefix,
        "weights_ignore": code.weights_ignore or None,
    }
    named = [f"`{name}`" for name, value in given.items() if value is not None]
    if named and not any(map(is_checkpoint, runnables)):
        what = f"{named[0]} is of a checkpoint"
        raise UsageError(what, got="no pytorch:CHECKPOINT", fix="leave it out")


def _kind(runnable: Runnable) -> Kind:
    if is_checkpoint(runnable):
        return "checkpoint"
    if isinstance(runnable, Engine):
        return _KINDS.get(runnable.sidecar.backend, "plan")
    return "onnx" if _is_exported(runnable) else kind_of(runnable)


def _open(runnable: Runnable, options: RuntimeOptions, code: NetCode, first: Segmenter | None) -> Segmenter:
    if _is_exported(runnable):
        return _segmenter(open_in_onnxruntime(runnable.content, options), runnable.spec, options)
    if isinstance(runnable, Engine):
        return _open_engine(runnable, options)
    if is_checkpoint(runnable):
        return _open_checkpoint(input_file(os.fspath(runnable).removeprefix(PYTORCH)), options, code, first)
    return Segmenter.open(runnable, options)


def _open_engine(engine: Engine, options: RuntimeOptions) -> Segmenter:
    kind = _kind(engine)
    if kind != "plan":
        backend = _openvino(engine.data, options) if kind == "openvino" else open_in_onnxruntime(engine.data, options)
        segmenter = _segmenter(backend, engine.sidecar.spec, options)
        segmenter.sidecar = engine.sidecar
        return segmenter
    # A plan is opened as on the device, from a file whose sidecar is checked first.
    with tempfile.TemporaryDirectory(prefix="fcn-deploy-") as folder:
        plan = Path(folder, "engine.plan")
        engine.save(plan)
        return Segmenter.open(plan, options)


def _segmenter(backend: Backend, spec: ModelSpec, options: RuntimeOptions) -> Segmenter:
    """Returns the segmenter of a backend, which is closed if they do not fit."""
    try:
        return Segmenter(backend, spec=spec, tile=options.tile, color=options.color)
    except BaseException:
        backend.close()
        raise


def _openvino(content: bytes, options: RuntimeOptions) -> OpenVinoBackend:
    from fcn_deploy.runtime.openvino.backend import OpenVinoBackend

    return OpenVinoBackend(content, threads=options.threads, device_name=options.device_name)


def _open_checkpoint(weights: Path, options: RuntimeOptions, code: NetCode, compared: Segmenter | None) -> Segmenter:
    # Imported here: a device that compares two engines does not have torch.
    from fcn_deploy.models.backend import TorchBackend
    from fcn_deploy.models.load import load_net, load_reference
    from fcn_deploy.models.spec_options import SpecOptions
    from fcn_deploy.models.weights_options import WeightsOptions

    part = WeightsOptions.of(code.weights_key, code.weights_prefix, code.weights_ignore)
    if compared is None:
        net = load_net(weights, SpecOptions(model=code.model, padding=code.padding, outputs=code.outputs), part=part)
        spec = _with_threshold(net)
    else:
        _check_same_net(code, compared.spec)
        net = load_reference(weights, compared.spec, code.model, compared.fixed_shape, part)
        spec = net.spec
    backend = TorchBackend(net.module, spec.channels, threads=options.threads)
    return _segmenter(backend, spec, options)


def _with_threshold(net: Net) -> ModelSpec:
    """Returns the spec of a net that is not exported, with the threshold that `export` would give it."""
    spec = net.spec
    if spec.threshold is None:
        return spec
    from fcn_deploy.models.backend import TorchBackend
    from fcn_deploy.onnx_export.threshold import warn_of_probabilities
    from fcn_deploy.onnx_export.tracing import TRACED, traced_threshold

    spec = replace(spec, threshold=traced_threshold(net.module, spec))
    advice = "export it with `threshold`, and name the model instead: it takes"
    with TorchBackend(net.module, spec.channels) as backend:
        warn_of_probabilities(spec, backend, TRACED.at_least(spec.min_size), advice=advice)
    return spec


def _check_same_net(code: NetCode, spec: ModelSpec) -> None:
    """Checks that what the user says of a checkpoint's net is what the engine beside it says."""
    if not isinstance(code.padding, AutoPadding) and code.padding not in (None, spec.padding):
        raise UsageError(
            "the engine's net is padded in another way", got=code.padding, expected=spec.padding, fix="leave it out"
        )
    if code.outputs not in (None, spec.outputs):
        raise UsageError(
            "the engine was made from other outputs of the net",
            got=code.outputs,
            expected=spec.outputs,
            fix="leave it out",
        )
