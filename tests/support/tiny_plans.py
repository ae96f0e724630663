"""Plans of a net of one convolution, built by the real libraries, and the same net as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.normalization import Normalization
from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import EngineFile, Sidecar, Source, sidecar_path
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.files import sha256_file, write_json

CLASSES = 4
PROFILES = (((1, 8, 8), (1, 16, 16), (4, 64, 64)), ((1, 32, 32), (4, 60, 60), (8, 128, 128)))


def spec() -> ModelSpec:
    """Of the net, which nobody trained."""
    names = tuple(f"class {index}" for index in range(CLASSES))
    return ModelSpec("fcn8s", 8, 1.0, CLASSES, names, default_palette(CLASSES), normalization=Normalization())


def onnx_model(io: str) -> bytes:
    """uint8 images to labels, or float images to logits."""
    weights = np.random.default_rng(0).normal(size=(CLASSES, 3, 3, 3)).astype(np.float32)
    kernel = numpy_helper.from_array(weights, "score.weight")
    score = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "name": "score"}
    if io == "tensor":
        nodes = [helper.make_node("Conv", ["image", "score.weight"], ["logits"], **score)]
        ends = [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES, "height", "width"]),
        ]
    else:
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["channels_first"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["channels_first", "score.weight"], ["logits"], **score),
            helper.make_node("ArgMax", ["logits"], ["index"], axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8),
        ]
        ends = [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3]),
            helper.make_tensor_value_info("labels", TensorProto.UINT8, ["batch", "height", "width"]),
        ]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], [kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def build(trt: Any, backend: str, path: Path, io: str = "image", gpus: tuple[str, ...] = ()) -> Path:
    """Builds a plan and writes it with its sidecar.

    Args:
        trt: `tensorrt` or `tensorrt_rtx`.
        backend: As sidecars call it.
        path: Where to.
        io: `image` or `tensor`.
        gpus: What the sidecar says it runs on.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(onnx_model(io)), [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    for shapes in PROFILES:
        profile = builder.create_optimization_profile()
        full = [(n, 3, h, w) if io == "tensor" else (n, h, w, 3) for n, h, w in shapes]
        profile.set_shape("image", *full)
        config.add_optimization_profile(profile)
    path.write_bytes(bytes(builder.build_serialized_network(network, config)))
    sidecar = Sidecar(
        engine=EngineFile(path.name, sha256_file(path), path.stat().st_size),
        backend=backend,
        library=str(trt.__version__),
        io=io,  # type: ignore[arg-type]
        precision=Precision("fp32", "fp32"),
        spec=spec(),
        source=Source("0" * 64),
        target={"cpu": "generic", "gpu": list(gpus)},
    )
    write_json(sidecar_path(path), sidecar.to_json())
    return path


def reference(io: str, image: np.ndarray) -> np.ndarray:
    """What ONNX Runtime's CPU makes of an image."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_model(io), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"image": image})[0]
    return result


def write_onnx(path: Path, io: str) -> Path:
    """Writes the net as an exported model, with its spec."""
    model = onnx.load_from_string(onnx_model(io))
    helper.set_model_props(model, {"fcn_deploy.spec": spec().dumps()})
    onnx.save(model, path)
    return path
