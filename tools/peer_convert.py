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
    names = list(images)
    count = int((folder / "control.txt").read_text()) or len(names)
    judged = names[:: -(-len(names) // count)]  # evenly spread
    model = openvino.Core().read_model(str(folder / "net.onnx"))
    whole = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # its own choice may be bf16
    labels = {name: whole(images[name])[0].argmax(1) for name in judged}

    def share_alike(compiled: openvino.CompiledModel, names: list[str]) -> tuple[float, list[float]]:
        shares = [float((compiled(images[name])[0].argmax(1) == labels[name]).mean()) for name in names]
        return float(np.mean(shares)), shares

    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(names, lambda name: images[name]),
        validation_dataset=nncf.Dataset(judged),
        validation_fn=share_alike,
        max_drop=_MAX_DROP,
        subset_size=len(images),
    )
    openvino.save_model(quantized, str(folder / "openvino_controlled.xml"))


def modelopt(folder: Path) -> None:
    """ModelOpt's quantisation of an ONNX graph, with its defaults, on the CPU, over all calibration images.

    It writes the Q/DQ of TensorRT. What is not quantised stays FP32, for CPUs; its default is FP16, for GPUs. It is
    given the net for images of one size: with dynamic sizes, it prints the formulas of sizes for ever on some nets.
    """
    import numpy as np
    import onnx
    from modelopt.onnx.quantization import quantize

    file = folder / "modelopt.onnx"
    if file.exists():  # for another contestant that runs the same
        return
    images = np.load(folder / "calibration.npz")
    planes = np.concatenate([images[name] for name in images])
    net = onnx.load(folder / "net.onnx")
    del net.graph.value_info[:]
    dims = net.graph.input[0].type.tensor_type.shape.dim
    names = [dim.dim_param for dim in dims]
    for dim, size in zip(dims, (1, *planes.shape[1:]), strict=True):
        dim.dim_value = size
    onnx.save(net, folder / "fixed.onnx")
    quantize(
        str(folder / "fixed.onnx"),
        quantize_mode="int8",
        calibration_data={"image": planes},
        calibration_shapes=f"image:1x3x{planes.shape[2]}x{planes.shape[3]}",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(folder / "fixed_int8.onnx"),
    )
    quantized = onnx.load(folder / "fixed_int8.onnx")
    del quantized.graph.value_info[:]
    for values in (quantized.graph.input, quantized.graph.output):
        for index in (0, 2, 3):
            values[0].type.tensor_type.shape.dim[index].dim_param = names[index]
    onnx.save(quantized, file)


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
        "modelopt-onnxruntime": modelopt,
        "modelopt-tensorrt-simulated": modelopt,
        "mnn-fp32": mnn,
        "ncnn-fp32": ncnn,
    }
    converters[what](Path(where), *map(int, size))
