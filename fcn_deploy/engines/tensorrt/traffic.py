"""What the layers of a plan move through memory: bytes per element, reformats, second copies.

Bytes per element
    A convolution multiplies, and then its result is brought to those who read it: written, read again, scaled,
    quantised, cropped, written again. What that takes tells a plan that fuses from one that does not. Kernels that only
    bring a result on belong to the layer `h` that made it, a convolution or a pool, and

        bytes per element of h = (sum over t in written(h) of size(t)
                                  + sum over k that belong to h, over t in read(k) and written(k), of size(t))
                                 / number of elements of the first tensor that h writes

        size(t) = elements(t) * bytes of its type

    What `h` itself reads is not in it: it has been brought there by the layer before, and how often a kernel reads it
    depends on the kernel. An FP16 convolution with bias and ReLU fused has 2. One in INT8 that writes FP32 (4), with a
    kernel that reads that (4) and writes int8 (1), has 9.

    A size of -1, not the same in every image, cancels out: height and width are taken to be those of the result. That
    is exact for kernels that scale, quantise, add and copy, and close for crops.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod
from typing import Literal

from fcn_deploy.artifacts.conditions import counted
from fcn_deploy.artifacts.plan import BYTES, Plan, PlanLayer

Role = Literal["convolution", "pool", "copy", "other"]

_CONVOLVERS = ("conv", "correlation", "gemm", "matrixmultiply", "fullyconnected")
_COPIERS = ("reformat", "shuffle", "copy")
_PART = re.compile(r"_myl(\d+)_\d+$|\[profile (\d+)\]$")
# TensorRT-RTX makes up names of generated kernels from what they do: __myl_SlicTranSlic_0x..., __myl_FcAddRelu_0x...
_GENERATED = re.compile(r"^__myl_((?:[A-Z][a-z]+)+)_")
_STEPS = re.compile(r"[A-Z][a-z]+")
_MOVES = {"Cast", "Conc", "Copy", "Move", "Repl", "Resh", "Slic", "Tran"}


@dataclass(frozen=True)
class Step:
    """A layer of a plan, and what it moves.

    Attributes:
        layer: The layer.
        role: `convolution`, `pool`, `copy` (it changes format or type and computes nothing) or `other`.
        head: Position of the layer whose result it brings on; its own, if it makes a result.
        bytes_per_element: Its part in the bytes per element of that layer; None if a type has no known size.
        copies: Tensors that it writes a second time: in another type or format, or pooled twice.
    """

    layer: PlanLayer
    role: Role
    head: int
    bytes_per_element: float | None
    copies: int


@dataclass(frozen=True)
class Traffic:
    """What a plan moves.

    Attributes:
        plan: The plan.
        steps: For each of its layers that reads or writes, in order.
        moved: Bytes that all layers read and write in one run, constants aside; None if a size is not fixed, or the
            plan has several profiles.
    """

    plan: Plan
    steps: tuple[Step, ...]
    moved: int | None

    @property
    def reformats(self) -> int:
        """The number of kernels that only copy, into another format, type or part of a tensor."""
        return sum(step.role == "copy" for step in self.steps)

    @property
    def second_copies(self) -> int:
        """The number of tensors that are written a second time."""
        return sum(step.copies for step in self.steps)

    @property
    def profiles(self) -> int:
        """The number of profiles, each of which has layers of its own."""
        return len({_part(step.layer) for step in self.steps})

    def bytes_per_element(self, role: Role = "convolution", reads: str | None = None) -> dict[str, float | None]:
        """Returns the bytes per element of each layer that makes a result, by name.

        Args:
            role: What the layers do.
            reads: The type of the first tensor that they read; any if None.
        """
        heads = [index for index, step in enumerate(self.steps) if step.head == index and step.role == role]
        if reads is not None:
            heads = [index for index in heads if self._type(self.steps[index].layer.reads) == reads]
        return {self.steps[head].layer.name: _sum(self._parts(head)) for head in heads}

    def writes(self, reads: str) -> Counter[str]:
        """Returns how many convolutions that read a type write which type."""
        convs = (step.layer for step in self.steps if step.role == "convolution")
        return Counter(self._type(conv.writes) for conv in convs if self._type(conv.reads) == reads)

    def _parts(self, head: int) -> list[float | None]:
        return [step.bytes_per_element for step in self.steps if step.head == head]

    def _type(self, names: tuple[str, ...]) -> str:
        return self.plan.tensors[names[0]].type if names else "nothing"


def traffic_of(plan: Plan) -> Traffic:
    """Finds what a plan moves; see the module for what the figures mean."""
    layers = [layer for layer in plan.layers if layer.reads or layer.writes]
    maker: dict[str, int] = {}  # by tensor, the position of the layer whose result it holds
    result: dict[int, str] = {}  # by position of such a layer, the tensor that it writes first
    read = {name for layer in layers for name in layer.reads}
    nodes: set[tuple[str, str, str]] = set()
    steps = []
    for index, layer in enumerate(layers):
        role = _role(layer)
        owners = [maker[name] for name in layer.reads if name in maker]
        # A sum of two results belongs to the later one: the other exists by then.
        head = max(owners) if owners and role not in ("convolution", "pool") else index
        maker |= dict.fromkeys(layer.writes, head)
        if head == index and layer.writes:
            result[index] = layer.writes[0]
        moved = layer.writes if head == index else (*layer.reads, *layer.writes)
        part = _sum(_size_in(plan, name, result[head]) for name in moved) if head in result else None
        steps.append(Step(layer, role, head, part, _copies(plan, layer, role, read, nodes)))
    sizes = [_bytes(plan, name) for layer in layers for name in (*layer.reads, *layer.writes)]
    one = len({_part(layer) for layer in layers}) == 1
    known = [size for size in sizes if size is not None]
    return Traffic(plan, tuple(steps), sum(known) if one and len(known) == len(sizes) else None)


def describe(plan: Plan) -> str:
    """Says in one clause how many kernels a plan has, and how much its convolutions move."""
    traffic = traffic_of(plan)
    counts = [counted(len(traffic.steps), "kernel"), counted(traffic.reformats, "reformat")]
    counts.append(f"{counted(traffic.second_copies, 'tensor')} written twice")
    said = ", ".join(counts) + (f" in {traffic.profiles} profiles" if traffic.profiles > 1 else "")
    for kind in ("int8", "fp8", "fp16", "bf16", "fp32"):
        moved = [each for each in traffic.bytes_per_element(reads=kind).values() if each is not None]
        if moved:
            said += f"; {counted(len(moved), f'{kind.upper()} convolution')}, {spread(moved)} bytes per element"
    return said


def spread(numbers: Collection[float]) -> str:
    """Returns the smallest and the largest of some numbers as text, `2 to 5.4`; one number if they are the same."""
    least, most = (f"{number:.1f}".removesuffix(".0") for number in (min(numbers), max(numbers)))
    return least if least == most else f"{least} to {most}"


def _role(layer: PlanLayer) -> Role:
    kind, generated = layer.kind.lower(), _GENERATED.match(layer.kernel) or _GENERATED.match(layer.name)
    steps = _STEPS.findall(generated[1]) if generated else []
    if any(word in kind for word in _CONVOLVERS) or "Fc" in steps:
        return "convolution"
    if "pool" in kind:
        return "pool"
    moves = bool(steps) and set(steps) <= _MOVES
    return "copy" if moves or any(word in kind for word in _COPIERS) else "other"


def _part(layer: PlanLayer) -> str:
    """Tells apart the layers of several profiles."""
    found = _PART.search(layer.name)
    return (found[1] or found[2]) if found else "0"


def _copies(plan: Plan, layer: PlanLayer, role: Role, read: set[str], seen: set[tuple[str, str, str]]) -> int:
    # What no layer reads is no copy, such as the values that TopK writes beside their positions.
    shapes = [plan.tensors[name].shape for name in layer.writes if name in read]
    written = sum(shape == shapes[0] for shape in shapes[1:])
    if role != "pool":
        return written
    pooled = {(_part(layer), layer.kind, node) for node in layer.nodes}
    again = bool(pooled & seen)
    seen |= pooled
    return written + again


def _size_in(plan: Plan, name: str, result: str) -> float | None:
    """The bytes of a tensor for each element of another."""
    tensor, of = plan.tensors[name], plan.tensors[result]
    size = BYTES.get(tensor.type)
    if size is None:
        return None
    if -1 in tensor.shape or -1 in of.shape:
        return size * _known(tensor.shape) / _known(of.shape)
    return size * prod(tensor.shape) / max(prod(of.shape), 1)


def _known(shape: tuple[int, ...]) -> int:
    return prod(size for size in shape if size > 0)


def _bytes(plan: Plan, name: str) -> int | None:
    tensor = plan.tensors[name]
    size = BYTES.get(tensor.type)
    return None if size is None or -1 in tensor.shape else size * prod(tensor.shape)


def _sum(numbers: Iterable[float | None]) -> float | None:
    found = list(numbers)
    known = [number for number in found if number is not None]
    return sum(known) if len(known) == len(found) else None
