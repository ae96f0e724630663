"""The layers of a plan as a table: kernels, types, and what they move."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fcn_deploy.artifacts.conditions import counted
from fcn_deploy.reporting.tables import new_table
from fcn_deploy.reporting.units import with_prefix

# What TensorRT-RTX adds to the names of layers and of the kernels that it generates.
_ADDED = re.compile(r"(?:_U\d+)?_myl\d+_\d+$")
_GENERATED = re.compile(r"^__myl_([A-Za-z]+)_")
_WIDTHS = {"layer": 18, "kernel": 20, "computes": 16}  # with the rest, 80 characters
_CAPTION = "B/el.: bytes written (indented: and read) per element of the layer's result"
# So that a cell has room for more than one of them.
_SHORT = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}


def plan_table(plan: Mapping[str, Any]) -> Table:
    """Returns a table with a row for each layer of a plan, 80 characters wide; long names are cut.

    A layer that only brings on the result of another is indented below it, even if others run in between.

    Args:
        plan: From `describe_plan`.
    """
    table = new_table("layers of the plan", "layer", "kernel", "reads -> writes", "B/el.", "computes")
    table.padding, table.show_edge, table.caption, table.caption_justify = 0, False, _CAPTION, "left"
    for column in table.columns:
        width = _WIDTHS.get(str(column.header))
        column.max_width, column.overflow = width, "ellipsis"
        if str(column.header) != "B/el.":
            column.justify = "left"
    order = {layer["name"]: position for position, layer in enumerate(plan["layers"])}
    for layer in sorted(plan["layers"], key=lambda each: order[each["belongs_to"]]):
        moved = layer["bytes_per_element"]
        table.add_row(
            _name(layer),
            _kernel(layer),
            f"{_types(layer['reads'])} -> {_types(layer['writes'])}",
            "?" if moved is None else f"{moved:.1f}".removesuffix(".0"),
            _computes(layer),
        )
    return table


def plan_line(plan: Mapping[str, Any]) -> str:
    """Returns what a plan has in all, as one line: kernels, reformats, second copies."""
    counts = (
        counted(plan["kernels"], "kernel"),
        counted(plan["reformats"], "reformat"),
        f"{counted(plan['second_copies'], 'tensor')} written twice",
    )
    profiles = f" in {plan['profiles']} profiles" if plan["profiles"] > 1 else ""
    moved = "" if plan["moved_bytes"] is None else f"; moves {with_prefix(plan['moved_bytes'], 'B')} a run"
    return f"{', '.join(counts)}{profiles}{moved}, by the {'inspector' if plan['source'] == 'inspector' else 'log'}"


def _name(layer: Mapping[str, Any]) -> str:
    name = _ADDED.sub("", layer["name"])
    if layer["belongs_to"] != layer["name"]:
        return "  " + (_last(layer["nodes"][-1]) if layer["nodes"] else name)
    if name.startswith("__my") and layer["nodes"]:
        return str(layer["nodes"][0])
    return name


def _kernel(layer: Mapping[str, Any]) -> str:
    generated = _GENERATED.match(layer["kernel"])
    return generated[1] if generated else layer["kernel"] or layer["kind"]


def _types(tensors: Sequence[str]) -> str:
    return "+".join(dict.fromkeys(tensor.split(" ", 1)[0] for tensor in tensors)) or "constants"


def _computes(layer: Mapping[str, Any]) -> str:
    """The nodes of a layer beside the one that its row is named after."""
    named = _name(layer).strip()
    return ", ".join(_last(node) for node in layer["nodes"] if node != named and _last(node) != named)


def _last(node: str) -> str:
    last = node.rpartition("/")[2]
    return _SHORT.get(last, last)
