"""One contestant of bench_peers.py in a process of its own, under whichever Python has its library.

    python tools/peer_worker.py openvino-int8 work 1x512x512 2

opens the net that was prepared in `work` for images of that shape, with two threads, and answers lines of JSON on its
standard input: `{"run": path}` with the milliseconds that the images in a NumPy file took, `{"save": path}` by writing
the labels of the last run there. Imports nothing of the project's but in contestants that are it, for the environment
of the peers does not have it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
Net = Callable[[NDArray[np.float32]], Logits]
Shape = tuple[int, int, int]


class WholeWay:
    """A net whose images are normalised and whose labels are found in NumPy, as its user would.

    Args:
        net: float32 [N, 3, H, W] to logits [N, C, H, W].
        folder: Where the net was prepared.
    """

    def __init__(self, net: Net, folder: Path) -> None:
        facts = json.loads((folder / "normalization.json").read_text())
        self._scale, self._offset = (np.array(facts[key], np.float32)[:, None, None] for key in ("scale", "offset"))
        self._order = [0, 1, 2] if facts["color"] == "RGB" else [2, 1, 0]
        self._net = net

    def __call__(self, images: Images) -> tuple[NDArray[np.uint8], float]:
        """Returns labels [N, H, W], and the milliseconds of the net alone."""
        planes = np.ascontiguousarray(images[..., self._order].transpose(0, 3, 1, 2), np.float32)
        planes *= self._scale
        planes += self._offset
        begin = time.perf_counter()
        logits = self._net(planes)
        spent = 1000 * (time.perf_counter() - begin)
        return logits.argmax(1).astype(np.uint8), spent


def open_torch(folder: Path, shape: Shape, threads: int, *, last: bool = False, compiled: bool = False) -> Net:
    """PyTorch: eager, with channels last, or compiled."""
    import torch

    from fcn_deploy.models.load import load_net
    from fcn_deploy.models.spec_options import SpecOptions

    torch.set_num_threads(threads)
    layout = torch.channels_last if last else torch.contiguous_format
    weights, *maker = (folder / "weights.txt").read_text().splitlines()
    options = SpecOptions(model=maker[0]) if maker else None
    module = load_net(Path(weights), options).module.to(memory_format=layout)  # type: ignore[call-overload]
    call = torch.compile(module) if compiled else module

    def net(planes: NDArray[np.float32]) -> Logits:
        with torch.inference_mode():
            return call(torch.from_numpy(planes).to(memory_format=layout)).numpy()  # type: ignore[no-any-return]

    return net


def open_onnxruntime(folder: Path, threads: int, model: str = "net.onnx", *, in_float: bool = False) -> Net:
    """ONNX Runtime, on the exported model or a quantised one, whose Q/DQ may be computed in float."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(folder / model), options, providers=["CPUExecutionProvider"])
    return lambda planes: session.run(None, {"image": planes})[0]


def open_openvino(folder: Path, shape: Shape, threads: int, model: str, precision: str = "f32") -> Net:
    """OpenVINO, with the shape fixed, which is the case it is fastest in."""
    import openvino

    core = openvino.Core()
    read = core.read_model(str(folder / model))
    read.reshape([shape[0], 3, *shape[1:]])
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(read, "CPU", hints).create_infer_request()
    return lambda planes: request.infer([planes], share_inputs=True, share_outputs=True)[0]


def open_mnn(folder: Path, shape: Shape, threads: int) -> Net:
    """MNN, in float32 throughout."""
    import MNN

    config = {"backend": "CPU", "numThread": threads, "precision": "high"}
    manager = MNN.nn.create_runtime_manager((config,))
    module = MNN.nn.load_module_from_file(str(folder / "net.mnn"), ["image"], ["logits"], runtime_manager=manager)

    def net(planes: NDArray[np.float32]) -> Logits:
        given = MNN.expr.const(planes, list(planes.shape), MNN.expr.NCHW)
        result = MNN.expr.convert(module.forward([given])[0], MNN.expr.NCHW)
        return result.read()  # type: ignore[no-any-return]

    return net


def open_ncnn(folder: Path, shape: Shape, threads: int) -> Net:
    """Ncnn, in float32 throughout; it has no batches, so images go one by one."""
    import ncnn

    opened = ncnn.Net()
    opened.opt.num_threads = threads
    for reduced in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(opened.opt, f"use_{reduced}", False)
    stem = str(folder / ncnn_stem(shape))
    opened.load_param(f"{stem}.ncnn.param")
    opened.load_model(f"{stem}.ncnn.bin")

    def one(plane: NDArray[np.float32]) -> Logits:
        with opened.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(plane))
            _, result = extractor.extract("out0")
            return np.array(result)

    return lambda planes: np.stack([one(plane) for plane in planes])


def ncnn_stem(shape: Shape) -> str:
    """Returns the name of the files of ncnn's net, which is of one size."""
    return f"net_{shape[1]}x{shape[2]}"


def open_ours(folder: Path, threads: int, engine: str) -> Callable[[Images], tuple[NDArray[Any], float]]:
    """The project's runtime; normalisation and argmax are in the engine, so the net alone is the whole."""
    from fcn_deploy.runtime import Segmenter

    segmenter = Segmenter(folder / engine, threads=threads)

    def run(images: Images) -> tuple[NDArray[Any], float]:
        begin = time.perf_counter()
        labels = segmenter(images)
        return labels, 1000 * (time.perf_counter() - begin)

    return run


def open_contestant(name: str, folder: Path, shape: Shape, threads: int) -> Callable[[Images], Any]:
    """Returns a function from images to labels and the milliseconds of the net alone."""
    if name.startswith("ours-"):
        return open_ours(folder, threads, f"{name.removeprefix('ours-')}.onnx")
    nets: dict[str, Callable[[], Net]] = {
        "torch-eager": lambda: open_torch(folder, shape, threads),
        "torch-channels_last": lambda: open_torch(folder, shape, threads, last=True),
        "torch-compile": lambda: open_torch(folder, shape, threads, compiled=True),
        "onnxruntime": lambda: open_onnxruntime(folder, threads),
        "openvino-fp32": lambda: open_openvino(folder, shape, threads, "net.onnx"),
        "onnxruntime-static": lambda: open_onnxruntime(folder, threads, "static.onnx"),
        "modelopt-onnxruntime": lambda: open_onnxruntime(folder, threads, "modelopt.onnx"),
        "modelopt-tensorrt-simulated": lambda: open_onnxruntime(folder, threads, "modelopt.onnx", in_float=True),
        "openvino-int8": lambda: open_openvino(folder, shape, threads, "openvino_int8.xml"),
        "openvino-int8-bf16": lambda: open_openvino(folder, shape, threads, "openvino_int8.xml", "bf16"),
        "openvino-controlled": lambda: open_openvino(folder, shape, threads, "openvino_controlled.xml"),
        "mnn-fp32": lambda: open_mnn(folder, shape, threads),
        "ncnn-fp32": lambda: open_ncnn(folder, shape, threads),
    }
    return WholeWay(nets[name](), folder)


def main() -> None:
    """Answers requests until there are none."""
    # Libraries print; what they print must not meet the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    name, folder, shape, threads = sys.argv[1:]
    run = open_contestant(name, Path(folder), tuple(map(int, shape.split("x"))), int(threads))  # type: ignore[arg-type]
    labels: NDArray[Any] | None = None
    print(json.dumps({"ready": name}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "save" in request:
            assert labels is not None
            np.save(request["save"], labels)
            answer: dict[str, Any] = {}
        else:
            images = np.load(request["run"])
            begin = time.perf_counter()
            labels, net_ms = run(images)
            answer = {"whole_ms": 1000 * (time.perf_counter() - begin), "net_ms": net_ms}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
