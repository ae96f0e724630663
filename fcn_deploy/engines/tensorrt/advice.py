"""Advice on the precision of a plan, by what its layers move."""

from __future__ import annotations

from fcn_deploy.artifacts.plan import BYTES, Plan
from fcn_deploy.engines.tensorrt.traffic import spread, traffic_of

# What an FP16 convolution writes for each element of its result, with bias and activation fused.
_FP16 = BYTES["fp16"]


def advise_fp16(plan: Plan) -> str | None:
    """Says so if INT8 layers of a plan move more through memory than they would in FP16, and what to do.

    INT8 multiplies faster than FP16, and its convolutions read half as much; but where the library does not fuse what
    follows a convolution, its result is written and read again. Which of the two counts for more is measured on the
    GPU. See `traffic` for what is counted.

    Args:
        plan: Of an INT8 engine.

    Returns:
        Sentences for the user; None if no INT8 convolution moves more than in FP16, or the plan has none.
    """
    found = traffic_of(plan).bytes_per_element(reads="int8")
    more = [each for each in found.values() if each is not None and each > _FP16]
    if not more:
        return None
    return (
        f"INT8 moves more than FP16 here: {len(more)} of {len(found)} INT8 convolutions take {spread(more)} bytes per "
        f"element to bring on their results, {_FP16} in FP16. FP16 is more accurate and may be as fast: build both "
        "(`build-engine` does, with `twin`), and compare them on the GPU with `benchmark`."
    )
