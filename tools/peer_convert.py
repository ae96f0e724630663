"""Converts an exported model for a peer of bench_peers.py, under the Python that has the peer's tools.

    python tools/peer_convert.py mnn work

reads `work/net.onnx`, and for INT8 the normalised images in `work/calibration.npz`, and writes beside them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from peer_worker import ncnn_stem


def openvino_int8(folder: Path) -> None:
    """NNCF's post-training quantisation, with its defaults, over all calibration images."""
    import nncf
    import numpy as np
    import openvino

    images = np.load(folder / "calibration.npz")
    dataset = nncf.Dataset(list(images), lambda name: images[name])
    model = openvino.Core().read_model(str(folder / "net.onnx"))
    openvino.save_model(nncf.quantize(model, dataset, subset_size=len(images)), str(folder / "openvino_int8.xml"))


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
    {"openvino-int8": openvino_int8, "mnn-fp32": mnn, "ncnn-fp32": ncnn}[what](Path(where), *map(int, size))
