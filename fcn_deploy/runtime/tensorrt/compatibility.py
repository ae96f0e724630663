"""Checks that a plan, the library and the GPU fit together, before the library is given the plan."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

from fcn_deploy.artifacts.precision import PREQUANTIZED
from fcn_deploy.artifacts.sidecar import Sidecar, sidecar_path
from fcn_deploy.errors import ArtifactError
from fcn_deploy.runtime.tensorrt.driver import Gpu
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS, Flavor, find_flavor

_log = logging.getLogger(__name__)


def choose_flavor(engine: Path, sidecar: Sidecar | None, asked: str | None) -> Flavor:
    """Returns the library that is to run a plan.

    That is the one that was asked for; if none was, the one that built the plan; if that is not installed, one that is
    installed and runs its plans. A plan without a sidecar is run by the library that is installed, if it is the only
    one.

    Args:
        engine: The plan's file, for error messages.
        sidecar: The plan's sidecar, or None.
        asked: Name of a flavor, or None.

    Raises:
        ArtifactError: No library, or not the one that was asked for, runs this plan; or nothing says which one built
            it.
        UsageError: There is no such flavor.
    """
    flavor = find_flavor(asked) if asked is not None else None
    if sidecar is None:
        if flavor is None:
            installed = [each for each in FLAVORS.values() if each.installed]
            if len(installed) == 1:
                _log.info(
                    "%s has no sidecar; %s runs it, the only library that is installed", engine, installed[0].name
                )
                return installed[0]
            raise ArtifactError(
                f"{engine} has no sidecar, and nothing else says which library built it",
                expected=str(sidecar_path(engine)),
                got=f"{' and '.join(each.name for each in installed) or 'no library'} installed",
                fix="copy the two files together, or name the library, one of "
                f"{', '.join(FLAVORS)}: Segmenter(open_backend(engine, flavor=...), spec=spec)",
            )
        return flavor
    able = [each for each in FLAVORS.values() if sidecar.backend in each.runs]
    if not able or (flavor is not None and flavor not in able):
        runs = flavor.runs if flavor is not None else tuple(each.name for each in FLAVORS.values() if each.builds)
        raise ArtifactError(
            f"{engine} was built for another library",
            got=sidecar.backend,
            expected=" or ".join(runs),
            fix=rebuild_command(engine, sidecar, backend=runs[0]),
        )
    if flavor is not None:
        return flavor
    own = next(each for each in able if each.name == sidecar.backend)
    return own if own.installed else next((each for each in able if each.installed), own)


def check_supported(engine: Path, flavor: Flavor, gpu: Gpu) -> None:
    """Checks that a library runs on a GPU at all: no plan would help there.

    Raises:
        ArtifactError: It does not.
    """
    if flavor.supports(gpu.compute_capability):
        return
    others = [each.name for each in FLAVORS.values() if each.builds and each.supports(gpu.compute_capability)]
    advice = f"build for {' or '.join(others)}, or " if others else ""
    raise ArtifactError(
        f"{flavor.name} cannot run {engine} here: it does not support this GPU",
        got=f"{gpu.name}, compute capability {gpu.compute_capability}",
        expected=", ".join(flavor.compute_capabilities) or f"{'.'.join(map(str, flavor.oldest_gpu))} or newer",
        fix=f'{advice}run the exported model in ONNX Runtime with `provider="cuda"`',
    )


def check_gpu(engine: Path, sidecar: Sidecar, gpu: Gpu) -> None:
    """Checks that a plan was built for a GPU.

    If the sidecar names no architecture, the library decides.

    Raises:
        ArtifactError: It was built for other GPUs.
    """
    built_for = [str(each) for each in sidecar.target.get("gpu") or ()]
    if not built_for or gpu.compute_capability in built_for:
        return
    newer = _numbers(gpu.compute_capability) >= min(map(_numbers, built_for))
    if sidecar.target.get("hardware_compatible") and newer:
        return
    raise ArtifactError(
        f"{engine} was built for other GPUs",
        got=f"{gpu.name}, compute capability {gpu.compute_capability}",
        expected=", ".join(built_for),
        fix=_rebuild_for(engine, sidecar, gpu.compute_capability),
    )


def check_version(engine: Path, sidecar: Sidecar, flavor: Flavor, version: str) -> None:
    """Checks that a plan was built by a version that the installed one can load.

    That is a version with the same major, minor and patch numbers; for plans built with `version_compatible=True`, also
    an older one of the same major number.

    Raises:
        ArtifactError: It was built by another version.
    """
    built, installed = _numbers(sidecar.library)[:3], _numbers(version)[:3]
    compatible = bool(sidecar.target.get("version_compatible"))
    if built == installed or (compatible and built[:1] == installed[:1] and built <= installed):
        return
    raise ArtifactError(
        f"{engine} was built by another version of {sidecar.backend}",
        got=f"{flavor.name} {version}",
        expected=f"{sidecar.library}{f' or a newer {built[0]}.x' if compatible else ''}",
        fix=f"{rebuild_command(engine, sidecar)}, where {sidecar.backend} {version} is installed",
    )


def check_host_code(engine: Path, sidecar: Sidecar, allowed: bool) -> None:
    """Checks that a plan may run code on the host if it brings such code.

    Raises:
        ArtifactError: It brings such code and may not run it.
    """
    if sidecar.target.get("version_compatible") and not allowed:
        raise ArtifactError(
            f"{engine} brings code that runs on the host, as plans built with `version_compatible=True` do",
            expected="your permission",
            fix="pass `allow_host_code=True` if you trust the origin of the engine",
        )


def rebuild_command(engine: Path, sidecar: Sidecar, *, backend: str | None = None, gpu: str | None = None) -> str:
    """Returns the command that builds a plan again, as far as its sidecar says.

    Args:
        engine: The plan's file.
        sidecar: The plan's sidecar.
        backend: The library to build it with; the same as before if None.
        gpu: The compute capability to build for; those of the plan if None. Ignored if the library does not take one.
    """
    name = backend or sidecar.backend
    flavor = FLAVORS.get(name)
    precision = sidecar.precision
    words = ["fcn-deploy build-engine", "MODEL.onnx", f"--{precision.requested}"]
    if precision.requested in ("int8", "fp8") and precision.method != PREQUANTIZED:
        words.append("--ranges RANGES.json")
        if precision.method:
            words.append(f"--calib-method {precision.method}")
    if precision.requested in ("int8", "fp8") and precision.base != "fp16":
        words.append(f"--base {precision.base}")
    if precision.tf32:
        words.append("--tf32")
    words.append(f"--backend {name} --io {sidecar.io}")
    for profile in sidecar.profiles:
        words += [
            f"--{key}-shape {'x'.join(map(str, profile[key]))}" for key in ("min", "opt", "max") if key in profile
        ]
    if flavor is not None and flavor.version_compatible and sidecar.target.get("version_compatible"):
        words.append("--version-compatible")
    if flavor is not None and flavor.hardware_compatible and sidecar.target.get("hardware_compatible"):
        words.append("--hardware-compatibility")
    if flavor is not None:
        words += [f"--compute-capability {each}" for each in _targets(flavor, sidecar, gpu)]
    words.append(f"-o {engine.name}")
    return " ".join(words) + f" (MODEL.onnx with sha256 {sidecar.source.onnx_sha256[:12]}...)"


def _targets(flavor: Flavor, sidecar: Sidecar, gpu: str | None) -> list[str]:
    """The GPUs that a library is told to build for."""
    if gpu is None and sidecar.target.get("hardware_compatible"):
        return []  # the default: 8.0 and newer
    wanted = (sidecar.target.get("gpu") or ()) if gpu is None else (gpu,)
    able = [str(each) for each in wanted if str(each) in flavor.compute_capabilities]
    return [each for each in able if flavor.multiplies_in(sidecar.precision.requested, each)]


def _rebuild_for(engine: Path, sidecar: Sidecar, gpu: str) -> str:
    """Returns what to do for a GPU that a plan was not built for: not what `build-engine` would refuse."""
    flavor, precision = find_flavor(sidecar.backend), sidecar.precision
    asked = (precision.requested, precision.base, "tf32" if precision.tf32 else None)
    lacks = list(dict.fromkeys(each for each in asked if each is not None and not flavor.multiplies_in(each, gpu)))
    if not lacks:
        return rebuild_command(engine, sidecar, gpu=gpu)
    reason = f"{flavor.name} has no {' and no '.join(each.upper() for each in lacks)} on this GPU"
    given = precision.method == PREQUANTIZED
    if given and precision.requested in lacks:
        return f"{reason}; run the engine on a GPU that has it, or build the float model its model was made from"
    base, tf32 = precision.base, precision.tf32 if "tf32" not in lacks else None
    if base in lacks:
        base = "fp32" if given else "fp16"  # FP32 holds every scale
    other = replace(precision, base=base, tf32=tf32)
    if precision.requested in lacks:
        other = replace(precision, requested="fp16", base="fp16", tf32=None)
    command = rebuild_command(engine, replace(sidecar, precision=other), gpu=gpu)
    return f"{reason}; build another engine: {command}"


def _numbers(version: str) -> tuple[int, ...]:
    """Returns the numbers that a version starts with: (10, 3, 0) for 10.3.0.post1."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
