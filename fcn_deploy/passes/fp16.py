"""Makes the data of a graph FP16."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import onnx_ir as ir

from fcn_deploy.passes.retype import retype
from fcn_deploy.passes.rewrite import Rewrite, RewriteResult


class ToFp16(Rewrite):
    """Makes float32 tensors FP16, with casts after the inputs and before the outputs, which stay float32.

    What:
        What is computed from the graph's inputs is data: it becomes FP16 with the constants it meets. What is computed
        from shapes alone stays as it is. A node that reads or makes a tensor in `keep` runs in float32, with the casts
        this needs. Tensors keep their names, but the output of a cast before an output takes that output's name.

    Why:
        Strongly typed TensorRT networks take each type from the graph; no builder flag lowers a precision.

    Before -> after:
        image (fp32) -> Conv (fp32) -> logits (fp32)
        image (fp32) -> Cast -> Conv (fp16) -> Cast -> logits (fp32)

    Source:
        https://docs.nvidia.com/deeplearning/tensorrt, "Strongly Typed Networks".

    Args:
        keep: Names of the tensors that stay float32.
    """

    # Each tensor is rounded to 11 bits; what that does to the output depends on the net.
    tolerance: ClassVar[float | None] = None

    def __init__(self, keep: Collection[str] = ()) -> None:
        self._keep = keep

    def call(self, model: ir.Model) -> RewriteResult:
        """Types a model whose float inputs are float32.

        Raises:
            InputError: As `retype.retype`; a constant outside FP16's range, for one.
        """
        return retype(model, ir.DataType.FLOAT16, self._keep)
