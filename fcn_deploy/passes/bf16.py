"""Makes the data of a graph BF16."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.passes.retype import retype
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult


class ToBf16(Rewrite):
    """Makes float32 tensors BF16, with casts after the inputs and before the outputs, which stay float32.

    What:
        The same as `ToFp16`, for another type. No tensor has to stay float32, because BF16 has float32's exponents.
        Transposed convolutions do: TensorRT-RTX 1.7.1 did not build graphs that ask for them in BF16 (measured), though
        it may merge the casts around one and run it in BF16 all the same. They are a small part of the work.

    Why:
        Strongly typed TensorRT networks take each type from the graph; no builder flag lowers a precision.

    Before -> after:
        image (fp32) -> Conv (fp32) -> logits (fp32)
        image (fp32) -> Cast -> Conv (bf16) -> Cast -> logits (fp32)

    Source:
        https://docs.nvidia.com/deeplearning/tensorrt, "Strongly Typed Networks". The opset is not raised: before opset
        22 ONNX has no BF16 in Conv, and TensorRT's parser takes it in every opset (measured, TensorRT-RTX 1.7.1).
    """

    # Each tensor is rounded to 8 bits; what that does to the output depends on the net.
    tolerance: ClassVar[float | None] = None

    def call(self, model: ir.Model) -> RewriteResult:
        """Types a model whose float inputs are float32.

        Raises:
            InputError: As `retype.retype`.
        """
        return retype(model, ir.DataType.BFLOAT16, keep_operators=("ConvTranspose",))
