"""The whole way of each target from the exported model to the graph of an engine: each line a rewrite, in order.

Between two lowerings `quantization` changes the graph, a room that `passes` does not know. In full:

    exported model                  after_torch
    adopted model                   adopted

    ONNX Runtime on a CPU, FP32     onnxruntime_cpu
    ... INT8                        before_onnxruntime_integers, quantization.onnxruntime (emits Q/DQ), onnxruntime_cpu
    ... a prequantized model        prequantized, onnxruntime_cpu_integers, onnxruntime_cpu

    OpenVINO, FP32 or BF16          openvino
    ... INT8                        before_openvino_integers, quantization.openvino (emits Q/DQ), openvino
    ... a prequantized model        prequantized, openvino

    TensorRT, FP32 or BF16          tensorrt
    ... FP16                        quantization.fp16_range (what stays FP32), tensorrt
    ... INT8 or FP8                 quantization.tensorrt (emits Q/DQ), quantization.fp16_range, tensorrt
    ... a prequantized model        prequantized, quantization.fp16_range, tensorrt
    ... simulated on a CPU          the lowering of TensorRT, simulation

Q/DQ is emitted first because ranges and precision maps name the layers and tensors of the exported model; the rewrites
for a target replace some of them. An optional step is a line with `if`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.shapes import Layout
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.passes.bf16 import ToBf16
from fcn_deploy.passes.channels_last import QuantizeChannelsLast
from fcn_deploy.passes.cubic_resize import KeepCubicResize
from fcn_deploy.passes.early_argmax import EarlyArgmax
from fcn_deploy.passes.fold_quantized_weights import FoldQuantizedWeights
from fcn_deploy.passes.forget_shapes import ForgetShapes
from fcn_deploy.passes.fp16 import ToFp16
from fcn_deploy.passes.image_io import ImageInput, LabelOutput, LogitsLayout
from fcn_deploy.passes.infer_types import InferTypes
from fcn_deploy.passes.inline_and_fold import InlineAndFold
from fcn_deploy.passes.keep_apart import KeepApart
from fcn_deploy.passes.keep_rectifiers import KeepRectifiers
from fcn_deploy.passes.names import NameDims, NameLayers, ReserveNames, UniqueNames
from fcn_deploy.passes.opset import RaiseOpset
from fcn_deploy.passes.pad_classes import PadClasses
from fcn_deploy.passes.pad_to_multiple import PadToMultiple
from fcn_deploy.passes.padded_pools import PaddedPools
from fcn_deploy.passes.prelu import RewritePRelu
from fcn_deploy.passes.retype import QDQ_OPSET
from fcn_deploy.passes.rewrite import Lowering
from fcn_deploy.passes.simulate_rounding import SimulateRounding
from fcn_deploy.passes.subpixel import ConvolveSubpixels
from fcn_deploy.passes.take_signature import TakeImage, TakeLogits
from fcn_deploy.passes.to_fp32 import ToFp32
from fcn_deploy.passes.to_uint8 import ToUint8
from fcn_deploy.passes.upsampling import RewriteUpsampling
from fcn_deploy.passes.winograd import Winograd

# Of exported models; see `ExportConfig`.
LEAST_OPSET, LATEST_OPSET = 18, 23


# What labels are while they are cropped: floats that hold every uint8, and that TensorRT casts to it.
_FLOATS = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.FLOAT, "fp32": ir.DataType.FLOAT}
# Below every logit; BF16 holds it too.
_LOWEST = {"fp16": -65504.0, "bf16": -3e38, "fp32": -3e38}


def after_torch(root: str = "") -> Lowering:
    """Lowers what torch.onnx wrote to the exported model.

    Args:
        root: The module whose path is left out of names.
    """
    return Lowering(
        # Nothing but names and shapes: whatever comes later, calibration above all, speaks of the exported tensors.
        NameLayers(root),
        NameDims(),
        # After the names, which go by what torch wrote. Before onnxsim, which would believe the shapes.
        ForgetShapes(),
    )


def adopted(
    image: Layout,
    sizes: tuple[int | None, int | None, int | None],
    logits: Layout,
    channels: int,
    resize: ResizeMode | None,
    padding: Padding | None = None,
) -> Lowering:
    """Lowers an ONNX model that another tool wrote to an exported model, without its spec.

    Args:
        image: Layout of its input.
        sizes: Batch, height and width of the images; None for any.
        logits: Layout of its output.
        channels: C.
        resize: How coarse logits are resized; None if they have the size of the image.
        padding: How images are padded; None if they are not.
    """
    return Lowering(
        # First, because a later opset may write as inputs what was an attribute, and so makes constants ...
        RaiseOpset(LEAST_OPSET),
        # ... that this makes initialisers. Converters of opsets do not go into functions, which the reader has inlined.
        InlineAndFold(),
        # Before the input and the output, which become float32 as well.
        ToFp32(),
        # Before names are given; what has them now is something else.
        ReserveNames(),
        TakeImage(image, sizes),
        # After the image, whose size it asks for.
        TakeLogits(logits, channels, resize),
        # Around all of it: what is resized is what the padded image gives.
        *([PadToMultiple(padding)] if padding is not None else []),
        # What was stated of the tensors is of another opset and other types, and often of the one size traced.
        InferTypes(),
        ForgetShapes(),
        # torch's own names if its exporter wrote the model; for all others, names at least.
        NameLayers(),
        UniqueNames(),
        RemoveUnusedNodesPass(),
    )


def prequantized() -> Lowering:
    """Lowers a model that brings its own Q/DQ to the form in which `quantization` emits it."""
    return Lowering(
        # First, because it makes constants of the weights, scales and zero points ...
        InlineAndFold(),
        # ... that this looks for.
        FoldQuantizedWeights(),
    )


def onnxruntime_cpu_integers(weights: Collection[str]) -> Lowering:
    """Lowers a prequantized model to the integers that ONNX Runtime's CPU kernels take.

    Args:
        weights: Names of the int8 weights that would saturate on the target CPU.
    """
    return Lowering(
        # After `prequantized`, which stores the weights as integers; which of them saturate is known only then.
        ToUint8(weights),
    )


def before_onnxruntime_integers(transposed: Collection[str]) -> Lowering:
    """Lowers an exported model to the layers that ONNX Runtime has integer kernels for.

    Args:
        transposed: Names of the transposed convolutions that become INT8.
    """
    return Lowering(
        # Before Q/DQ, which is for convolutions and LeakyRelu; tensors that calibration saw keep their names.
        ConvolveSubpixels(transposed),
        RewritePRelu(),
    )


def before_openvino_integers(transposed: Collection[str]) -> Lowering:
    """Lowers an exported model to the layers that OpenVINO has integer kernels for.

    Args:
        transposed: Names of the transposed convolutions that become INT8.
    """
    # Before Q/DQ, as for ONNX Runtime. PReLU is fused into convolutions as it is.
    return Lowering(ConvolveSubpixels(transposed))


def onnxruntime_cpu(image_io: ModelSpec | None, winograd: Collection[str] | None = None) -> Lowering:
    """Lowers an exported model, in FP32 or with Q/DQ, to an engine for ONNX Runtime on a CPU.

    Args:
        image_io: What the net is, for an engine that takes uint8 images and gives labels; None for one that takes
            float32 `image` and gives `logits`.
        winograd: Names of the layers for Winograd's algorithm; those with enough channels if None.
    """
    steps: list[ir.passes.PassBase] = [
        # Anywhere: nothing else here looks at activations.
        RewritePRelu(),
        # After quantisation, which goes by layers. Before Winograd, which also takes 3x3 convolutions that this writes.
        RewriteUpsampling(),
        # Before the next, whose gain is in maps stored in blocks of channels: those of a layer replaced here are not.
        Winograd(winograd),
        QuantizeChannelsLast(),
        # After all that moves a Resize, or quantises what it reads.
        KeepCubicResize(),
    ]
    if image_io is not None:
        steps += [
            # Anywhere: nothing else here touches the input.
            ImageInput(image_io.normalization),
            LabelOutput(image_io.threshold),
            # After `LabelOutput` and `RewriteUpsampling`: it moves the ArgMax of the one before the DepthToSpace of the
            # other.
            EarlyArgmax(),
        ]
    # Last. Drop the float weights that were replaced, or the INT8 file is the larger one; and the shapes: those that an
    # older version or another tool wrote may be of one size.
    steps += [RemoveUnusedNodesPass(), ForgetShapes()]
    return Lowering(*steps)


def openvino(image_io: ModelSpec | None, apart: Collection[str] = (), *, layout: LogitsLayout = "last") -> Lowering:
    """Lowers an exported model, in float or with Q/DQ, to an engine for OpenVINO.

    It fuses and lays out the graph by itself. What helps ONNX Runtime hides from it what it looks for:
    docs/openvino.md has the figures.

    Args:
        image_io: What the net is, for an engine that takes uint8 images and gives labels; None for one that takes
            float32 `image` and gives `logits`.
        apart: Names of the QuantizeLinear that OpenVINO would merge with what is before them.
        layout: How logits lie when labels are found; see `LabelOutput`.
    """
    # Anywhere: nothing else here looks at max-pools, or at what is quantised.
    steps: list[ir.passes.PassBase] = [PaddedPools(), KeepApart(apart)]
    if image_io is not None:
        steps += [ImageInput(image_io.normalization), LabelOutput(image_io.threshold, layout=layout)]
    # Last, as for ONNX Runtime.
    steps += [RemoveUnusedNodesPass(), ForgetShapes()]
    return Lowering(*steps)


def tensorrt(
    base: Literal["fp16", "bf16", "fp32"],
    image_io: ModelSpec | None,
    *,
    quantized: Literal["int8", "fp8"] | None = None,
    keep_fp32: Collection[str] = (),
    pad_classes: bool = False,
) -> Lowering:
    """Lowers an exported model, with or without Q/DQ, to the typed graph that a TensorRT builder parses.

    Args:
        base: The precision of what is not quantised.
        image_io: What the net is, for an engine that takes uint8 images and gives labels; None for one that takes
            float32 `image` and gives `logits`.
        quantized: What the Q/DQ of the graph make; None if it has none.
        keep_fp32: Names of the tensors that stay float32 on a base of FP16.
        pad_classes: Whether the layers that make scores get channels in eights.
    """
    steps: list[ir.passes.PassBase] = []
    if image_io is not None:
        # Before the types: then ArgMax reads logits of 16 bits, and no cast must make float32 of them first.
        steps.append(LabelOutput(image_io.threshold))
        # After `LabelOutput`, whose ArgMax it moves.
        steps.append(EarlyArgmax(crops_only=True, cropped_as=_FLOATS[base]))
        if pad_classes and not keep_fp32:
            # After `LabelOutput`, whose ArgMax hides them. Logits that stay float32 may be below FP16's lowest number.
            steps.append(PadClasses(_LOWEST[base]))
    if quantized == "fp8" or (quantized and base != "fp32"):
        # Before the types: in older opsets Q/DQ has none of these. After quantisation, whose emitter writes any opset.
        steps.append(RaiseOpset(QDQ_OPSET))
    if base == "fp16":
        steps.append(ToFp16(keep_fp32))
    if base == "bf16":
        steps.append(ToBf16())
    if image_io is not None:
        # After the types: what stands before the net by then would get them too, and normalisation must stay FP32.
        steps.append(ImageInput(image_io.normalization))
    # Last. Drop the float constants that were replaced, or the graph holds them twice; and shapes, as for ONNX Runtime.
    steps += [RemoveUnusedNodesPass(), ForgetShapes()]
    return Lowering(*steps)


def simulation() -> Lowering:
    """Lowers a typed graph to one by which ONNX Runtime computes on a CPU what the typed graph says."""
    return Lowering(
        SimulateRounding(),
        # After it: what it rounds has a cast in front of the QuantizeLinear, and ONNX Runtime leaves that alone.
        KeepRectifiers(),
        # The 16-bit constants, now that float32 ones stand beside them.
        RemoveUnusedNodesPass(),
    )
