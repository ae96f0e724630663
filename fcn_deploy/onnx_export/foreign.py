"""ONNX models that another tool exported: which tensor is the image, and which are the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass, ShapeInferencePass

from fcn_deploy.artifacts.shapes import ImageShape, Layout
from fcn_deploy.artifacts.sidecar import ENGINE_KEY
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.graph.ops import REARRANGING
from fcn_deploy.onnx_export.foreign_repair import OTHER_NAME, repaired
from fcn_deploy.passes.pipelines import LATEST_OPSET, LEAST_OPSET

_DTYPES = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16", ir.DataType.UINT8: "uint8"}
# Of the file format; an older one wants constants among the inputs, and knows no opset from 18 on.
_LEAST_IR_VERSION = 8
# As a net in PyTorch may call its logits.
_LOGITS = ("logits", "out")
# They make labels of logits; between them and the output are operators that only move or cast labels.
_LABELLING = ("ArgMax", "Greater", "GreaterOrEqual", "TopK")
_MOVING = REARRANGING | {"Cast", "Slice", "Gather", "Resize"}
_SHOWN = 8
_CHANNEL_AXES: dict[Layout, int] = {"nchw": 1, "nhwc": 3}


@dataclass(frozen=True)
class ForeignImage:
    """The input of a model that takes images.

    Attributes:
        name: The input's name.
        dtype: `float32`, `float16` or `uint8`.
        layout: The order of its axes.
        sizes: Batch, height and width; None for any.
    """

    name: str
    dtype: str
    layout: Layout
    sizes: tuple[int | None, int | None, int | None]

    @property
    def fixed(self) -> ImageShape | None:
        """The one shape it takes; None if it takes several."""
        batch, height, width = self.sizes
        return None if batch is None or height is None or width is None else ImageShape(batch, height, width)

    def at(self, shape: ImageShape) -> ImageShape:
        """Returns a shape with the sizes that are fixed in their place."""
        batch, height, width = self.sizes
        return ImageShape(batch or shape.batch, height or shape.height, width or shape.width)


@dataclass(frozen=True, eq=False)
class ForeignModel:
    """A model that another tool exported.

    Attributes:
        content: Of an ONNX file of it whose one input is the image and whose one output is `logits`: the file itself if
            it has no other.
        image: Its input.
        logits: The name of the tensor that holds the logits.
        model: The same, to be rewritten: without local functions, with one input and one output.
        what: What to call it in an error.
    """

    content: bytes
    image: ForeignImage
    logits: str
    model: ir.Model
    what: str


def read_foreign(
    content: bytes,
    what: str,
    *,
    image: str | None = None,
    logits: str | int | None = None,
    layout: Layout | None = None,
    shape: ImageShape | None = None,
) -> ForeignModel:
    """Reads an ONNX model that takes images and gives logits, whatever they are called.

    Args:
        content: Of the file, with its weights.
        what: What to call it in an error.
        image: Name of the input; None for the only one.
        logits: Name or index of the output, or name of a tensor inside the graph; None for the only output, or the one
            that is called `logits` or `out`.
        layout: Of the input, if its shape leaves a choice.
        shape: Fixes the sizes that are not; None leaves them as they are.

    Raises:
        InputError: It is not an ONNX model, is an engine or an exported model already, is of an opset after 23, takes
            no images, or gives labels; or a choice has to be made that was not.
        UsageError: What was chosen does not fit.
    """
    content, model = _parsed(content, what)
    _check_origin(model, what)
    model.ir_version = max(model.ir_version, _LEAST_IR_VERSION)
    given = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    whole = len(model.graph.outputs) == 1 and not sum(map(_open_sizes, given))
    InlinePass()(model)
    ShapeInferencePass()(model)
    chosen = _chosen_logits(model.graph, logits, what)
    whole = whole and model.graph.outputs[0] is chosen
    _check_no_labels(chosen, what)
    model.graph.outputs[:] = [chosen]
    RemoveUnusedNodesPass()(model)
    # The initialisers, which old models list as inputs too, stay constants; inputs of what was removed go.
    stated = list(model.graph.inputs)
    model.graph.inputs[:] = [value for value in given if value.uses()]
    whole = whole and len(given) == len(model.graph.inputs)
    value = _chosen_image(model.graph.inputs, stated, image, what)
    taken = _read_image(value, layout, shape, what)
    return ForeignModel(content if whole else serialize(model), taken, str(chosen.name), model, what)


def _parsed(content: bytes, what: str) -> tuple[bytes, ir.Model]:
    """Returns a model and the content of its file, which is another if the model had to be repaired."""
    try:
        model = parse(content, what)
    except InputError:
        better = repaired(content)
        if better is None:
            raise
    else:
        better = None if OTHER_NAME not in model.opset_imports else repaired(content)
        if better is None:
            return content, model
    return better, parse(better, what)


def _check_origin(model: ir.Model, what: str) -> None:
    if ENGINE_KEY in model.metadata_props:
        raise InputError(
            f"{what} is an engine already", expected="a model that another tool exported", fix="run it as it is"
        )
    if METADATA_KEY in model.metadata_props:
        raise InputError(
            f"{what} is an exported model already",
            expected="a model that another tool exported",
            fix="build its engine: fcn-deploy build-engine",
        )
    opset = model.opset_imports.get("", LEAST_OPSET)
    if opset > LATEST_OPSET:
        raise InputError(
            f"{what} is of an opset that is not supported",
            got=opset,
            expected=f"at most {LATEST_OPSET}",
            fix=f"export it for opset {LEAST_OPSET}",
        )


def _chosen_logits(graph: ir.Graph, wanted: str | int | None, what: str) -> ir.Value:
    outputs = list(graph.outputs)
    if not outputs:
        raise InputError(f"{what} has no outputs", expected="logits, a score for each class and pixel")
    listed = _listed(outputs)
    if wanted is None:
        named = [value for value in outputs if value.name in _LOGITS]
        if len(outputs) == 1 or len(named) == 1:
            return outputs[0] if len(outputs) == 1 else named[0]
        likely = [value for value in outputs if value.dtype is None or value.dtype.is_floating_point()] or outputs
        raise InputError(
            f"{what} has several outputs",
            got=listed,
            expected="one of them to be the logits",
            fix=f"name it, such as `logits={likely[0].name}`",
        )
    index = int(wanted) if isinstance(wanted, int) or wanted.lstrip("-").isdecimal() else None
    by_index = [] if index is None or not -len(outputs) <= index < len(outputs) else [outputs[index]]
    # The index counts more than the name of a tensor inside: some tools call all of them by numbers.
    by_name = [[value for value in values if value.name == wanted] for values in (outputs, _made(graph))]
    found = [*by_name[0], *by_index, *by_name[1]]
    if found:
        return found[0]
    raise InputError(
        f"{what} has no tensor {wanted!r}",
        got=f"outputs {listed}",
        expected="the name or the index of an output, or the name of a tensor inside",
    )


def _made(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs if value.name]


def _chosen_image(inputs: Sequence[ir.Value], stated: Sequence[ir.Value], wanted: str | None, what: str) -> ir.Value:
    if wanted is not None and wanted not in [value.name for value in inputs]:
        known = wanted in [value.name for value in stated]
        raise InputError(
            f"the logits of {what} do not depend on {wanted!r}" if known else f"{what} has no input {wanted!r}",
            got=_listed(inputs) or "no inputs",
            expected="one of these",
        )
    if len(inputs) == 1:
        return inputs[0]
    if wanted is not None:
        others = [value for value in inputs if value.name != wanted]
        raise InputError(
            f"{what} needs more than an image", got=_listed(others), expected="one input", fix="export it without them"
        )
    raise InputError(
        f"the logits of {what} depend on {len(inputs)} inputs" if inputs else f"{what} takes no images",
        got=_listed(inputs) or "logits that depend on no input",
        expected="one input, the image",
        fix="export it with constants for the others" if inputs else None,
    )


def _listed(values: Sequence[ir.Value]) -> str:
    shown = ", ".join(map(_described, values[:_SHOWN]))
    return shown + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


def _described(value: ir.Value) -> str:
    sizes = "of unknown shape" if value.shape is None else f"[{', '.join(map(_size, value.shape))}]"
    return f"{value.name} {value.dtype.name.lower() if value.dtype else 'of unknown type'} {sizes}"


def _size(size: int | ir.SymbolicDim) -> str:
    return str(size) if isinstance(size, int) else size.value or "?"


def _check_no_labels(value: ir.Value, what: str) -> None:
    """Refuses an output of labels, also as floats; the error names the tensor that they were made from."""
    made = value
    node = made.producer()
    while node is not None and node.op_type in _MOVING and node.inputs[0] is not None:
        made = node.inputs[0]
        node = made.producer()
    labels = node is not None and node.op_type in _LABELLING and made is not _largest_values(node)
    if not labels and (value.dtype is None or value.dtype.is_floating_point()):
        return
    source = node.inputs[0] if node is not None and labels else None
    raise InputError(
        f"{what} gives labels, not logits",
        got=_described(value),
        expected="float logits, a score for each class and pixel; labels are made where they are needed",
        fix=f"name the tensor before its {node.op_type}: `logits={source.name}`"
        if node is not None and source is not None
        else "export it without what makes labels of its logits, or name a float tensor inside with `logits`",
    )


def _largest_values(node: ir.Node) -> ir.Value | None:
    return node.outputs[0] if node.op_type == "TopK" else None


def _read_image(value: ir.Value, layout: Layout | None, shape: ImageShape | None, what: str) -> ForeignImage:
    dtype = _DTYPES.get(value.dtype) if value.dtype is not None else None
    if dtype is None or value.shape is None or value.shape.rank() != 4:
        raise InputError(
            f"{what} does not take images",
            got=_described(value),
            expected="float32, float16 or uint8 [N, 3, H, W] or [N, H, W, 3]",
            fix="export it with the axis of a batch" if value.shape is not None and value.shape.rank() == 3 else None,
        )
    layout = _chosen_layout(value, layout, what)
    sizes = [value.shape[axis] for axis in range(4) if axis != _CHANNEL_AXES[layout]]
    own = [size if isinstance(size, int) and size > 0 else None for size in sizes]
    if shape is not None:
        wanted = (shape.batch, shape.height, shape.width)
        if any(size not in (None, asked) for size, asked in zip(own, wanted, strict=True)):
            raise UsageError(
                "the model's shape is fixed", got=f'`shape="{shape}"`', expected=_described(value), fix="leave it out"
            )
        own = list(wanted)
    batch, height, width = own
    return ForeignImage(str(value.name), dtype, layout, (batch, height, width))


def _open_sizes(value: ir.Value) -> bool:
    """Makes any size of sizes that are no sizes, as some tools write 0 or -1 for it; returns whether there are some."""
    sizes = list(value.shape or ())
    found = [axis for axis, size in enumerate(sizes) if isinstance(size, int) and size < 1]
    if found:
        value.shape = ir.Shape([None if axis in found else size for axis, size in enumerate(sizes)])
    return bool(found)


def _chosen_layout(value: ir.Value, wanted: Layout | None, what: str) -> Layout:
    assert value.shape is not None
    channels = {layout: value.shape[axis] for layout, axis in _CHANNEL_AXES.items()}
    fixed = [layout for layout, count in channels.items() if count == 3]
    possible = fixed or [layout for layout, count in channels.items() if not isinstance(count, int) or count < 1]
    if not possible:
        raise InputError(
            f"{what} does not take images of three channels",
            got=_described(value),
            expected="[N, 3, H, W] or [N, H, W, 3]",
        )
    if wanted is not None and wanted not in possible:
        raise UsageError(
            "the model has another layout", got=f'`layout="{wanted}"`', expected=_described(value), fix="leave it out"
        )
    if wanted is None and (len(possible) > 1 or not fixed):
        raise InputError(
            f"the shape of the input of {what} does not say which axis is that of the channels",
            got=_described(value),
            expected="3 of them, [N, 3, H, W] or [N, H, W, 3]",
            fix='add `layout="nchw"` or `layout="nhwc"`',
        )
    return wanted or possible[0]
