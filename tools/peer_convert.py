"""Converts an exported model for a peer of bench_peers.py, under the Python that has the peer's tools.

    python tools/peer_convert.py mnn work

reads `work/net.onnx`, and for INT8 the normalised images in `work/calibration.npz`, and writes beside them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from peer_worker import ncnn_stem

# How many labels, as a share, control of the accuracy lets change on the calibration images.
_MAX_DROP = 0.01


def openvino_int8(folder: Path) -> None:
    """NNCF's post-training quantisation, with its defaults, over all calibration images."""
    import nncf
    import numpy as np
    import openvino

    file = folder / "openvino_int8.xml"
    if file.exists():  # for another contestant that runs the same
        return
    images = np.load(folder / "calibration.npz")
    dataset = nncf.Dataset(list(images), lambda name: images[name])
    model = openvino.Core().read_model(str(folder / "net.onnx"))
    openvino.save_model(nncf.quantize(model, dataset, subset_size=len(images)), str(file))


def openvino_controlled(folder: Path) -> None:
    """NNCF's quantisation under control of the accuracy: the share of labels that stay, as no truth is known."""
    import nncf
    import numpy as np
    import openvino

    images = np.load(folder / "calibration.npz")
    model = openvino.Core().read_model(str(folder / "net.onnx"))
    whole = openvino.compile_model(model, "CPU")
    labels = {name: whole(images[name])[0].argmax(1) for name in images}

    def share_alike(compiled: openvino.CompiledModel, names: list[str]) -> tuple[float, list[float]]:
        shares = [float((compiled(images[name])[0].argmax(1) == labels[name]).mean()) for name in names]
        return float(np.mean(shares)), shares

    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(list(images), lambda name: images[name]),
        validation_dataset=nncf.Dataset(list(images)),
        validation_fn=share_alike,
        max_drop=_MAX_DROP,
        subset_size=len(images),
    )
    openvino.save_model(quantized, str(folder / "openvino_controlled.xml"))


def mnn(folder: Path) -> None:
    """MNN's own format."""
    converter = Path(sys.executable).with_name("mnnconvert")
    target = ["--modelFile", str(folder / "net.onnx"), "--MNNModel", str(folder / "net.mnn")]
    subprocess.run([str(converter), "-f", "ONNX", *target, "--bizCode", "bench"], check=True)


def ncnn(folder: Path, height: int, width: int) -> None:
    """The format of ncnn, by pnnx, for images of one size."""
    stem = folder / ncnn_stem((1, height, width))
    # pnnx writes beside its input, and names what it writes after it.
    model = stem.with_suffix(".onnx")
    model.unlink(missing_ok=True)
    model.hardlink_to(folder / "net.onnx")
    pnnx = Path(sys.executable).with_name("pnnx")
    subprocess.run([str(pnnx), model.name, f"inputshape=[1,3,{height},{width}]", "fp16=0"], check=True, cwd=folder)


if __name__ == "__main__":
    what, where, *size = sys.argv[1:]
    converters = {
        "openvino-int8": openvino_int8,
        "openvino-int8-bf16": openvino_int8,
        "openvino-controlled": openvino_controlled,
        "mnn-fp32": mnn,
        "ncnn-fp32": ncnn,
    }
    converters[what](Path(where), *map(int, size))
