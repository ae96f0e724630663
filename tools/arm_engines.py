"""Builds the engines that `arm_check.sh` runs on emulated Arm CPUs, and compares the labels.

    python tools/arm_engines.py build FOLDER
    python tools/arm_engines.py compare HOST.npz ARM.npz...

Exit code 3 if labels differ where they have to be the same, or are missing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import fcn_deploy as fd
from fcn_deploy import demo
from fcn_deploy.cli.options.types import PATH
from fcn_deploy.errors import GateError
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.runtime.image import normalize

_SIZE = (96, 128)
_SCENES, _CALIBRATION = demo.EVALUATION_SEEDS[100:108], demo.CALIBRATION_SEEDS[:8]
# Its negative weights are made -128: two neighbours of them saturate at two activations of 0, which are common.
_LOWEST = "conv2_2.0.weight_quantized"


@click.group()
def main() -> None:
    """Builds engines for emulated Arm CPUs, and compares labels."""


@main.command()
@click.argument("folder", type=PATH)
def build(folder: Path) -> None:
    """Writes engines of the demo net, with scenes to run them on, into FOLDER."""
    np.save(folder / "scenes.npy", np.stack([demo.make_scene(seed, _SIZE).image for seed in _SCENES]))
    model = fd.export(demo.checkpoint_path())
    with tempfile.TemporaryDirectory(prefix="fcn-deploy-") as name:
        work = Path(name)
        demo.write_scenes(work, _CALIBRATION, _SIZE)
        ranges = fd.calibrate(model, work / "images")
        foreign = _foreign(model, work)
        fd.build_engine(model, precision="fp32").save(folder / "fp32.onnx")
        fd.build_engine(foreign, precision="int8", target_cpu="vnni").save(folder / "int8-foreign.onnx")
    for target in ("generic", "vnni"):
        engine = fd.build_engine(model, precision="int8", ranges=ranges, target_cpu=target)
        engine.save(folder / f"int8-{target}.onnx")


@main.command()
@click.argument("host", type=PATH)
@click.argument("arms", type=PATH, nargs=-1, required=True)
def compare(host: Path, arms: tuple[Path, ...]) -> None:
    """Compares the labels of HOST with those of ARMS, bit for bit where both sum floats in the same order."""
    expected, failed = _labels(host), False
    for arm in arms:
        found = _labels(arm)
        if missing := expected.keys() - found.keys() - {"fp32 fast_math"}:
            click.echo(f"{arm.stem:<12} {', '.join(sorted(missing))}: no labels: FAILED")
            failed = True
        for key, labels in found.items():
            differ = int((labels != expected[key.replace("fast_math", "all")]).sum())
            least = _least_agreement(key)
            passed = differ <= (1 - least) * labels.size
            failed |= not passed
            gate = "bit for bit" if least == 1 else f"at least {least:.1%}"
            said = "passed" if passed else "FAILED"
            click.echo(f"{arm.stem:<12} {key:<22} {differ:>6} of {labels.size} labels differ; {gate}: {said}")
    if failed:
        raise SystemExit(GateError.exit_code)


def _least_agreement(key: str) -> float:
    if key.endswith("fast_math"):
        return 0.99  # the gate of BF16
    if key.startswith("fp32") or key.endswith("extended"):
        return 1
    # As the runtime runs it, ONNX Runtime chooses layouts by the CPU. What is float in an INT8 engine is then summed in
    # another order, and a sum in the middle of two integers rounds to the other one.
    return 0.999


def _labels(path: Path) -> dict[str, NDArray[np.uint8]]:
    with np.load(path) as file:
        return dict(file)


def _foreign(model: ExportedModel, work: Path) -> ExportedModel:
    """The net as another tool quantises it, with weights of -128 as torch's quantisers leave them."""
    exported, quantized = work / "exported.onnx", work / "quantized.onnx"
    model.save(exported)
    scenes = [demo.make_scene(seed, _SIZE).image[None] for seed in _CALIBRATION]
    feeds = _Feeds([normalize(scene, model.spec.normalization) for scene in scenes])
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(exported, quantized, feeds, QuantFormat.QDQ, per_channel=True, **types)
    proto = onnx.load(quantized)
    weights = next(each for each in proto.graph.initializer if each.name == _LOWEST)
    integers = numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(np.where(integers < -40, np.int8(-128), integers), weights.name))
    onnx.save(proto, quantized)
    return fd.load_exported(quantized)


class _Feeds(CalibrationDataReader):
    def __init__(self, images: Sequence[NDArray[np.float32]]) -> None:
        self._images: Iterator[NDArray[np.float32]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


if __name__ == "__main__":
    main()
