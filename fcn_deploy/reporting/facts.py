"""What `inspect` finds in a file, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.reporting.plan_table import plan_line
from fcn_deploy.reporting.tables import PlainTable, heading, lines, new_table, plain, summary_table
from fcn_deploy.reporting.units import with_prefix

# Names that are too long for a layer to fit into a line of 80 characters.
_SHORT = {"ConvTranspose": "Deconv"}


def detail_table(facts: Mapping[str, Any]) -> Table | None:
    """Returns the table of what a file holds: layers, their precisions, tensors, or the engines of a summary.

    Returns:
        The table; None if there is nothing to list.
    """
    if facts["kind"] == "summary":
        return summary_table(Summary.from_json(facts))
    if facts.get("layers"):
        return _layer_table(facts)
    if facts.get("precisions"):
        return _precision_table(facts["precisions"])
    if facts.get("tensors"):
        return _range_table(facts["tensors"]) if facts["kind"] == "ranges" else _tensor_table(facts["tensors"])
    return None


def _layer_table(facts: Mapping[str, Any]) -> Table:
    shape = facts["shape"]
    title = "layers" if shape is None else f"layers, for images of {_by(shape)}"
    table = new_table(title, "layer", "type", "weights", "output", "params", "MACs", "share", "in")
    _fold_names(table)
    table.padding, table.show_edge = 0, False  # eight columns only just fit into 80 characters
    for column in table.columns[1:4]:
        column.justify = "left"
    for layer in facts["layers"]:
        output, macs, total = layer["output"], layer["macs"], facts["macs"]
        table.add_row(
            layer["name"],
            _SHORT.get(layer["op"], layer["op"]),
            _by(layer["weights"]),
            "?" if output is None else _by(output),
            with_prefix(layer["parameters"]),
            "?" if macs is None else with_prefix(macs, "MAC"),
            "?" if not total else f"{macs / total:.1%}",
            layer["precision"],
        )
    table.add_section()
    macs = "?" if facts["macs"] is None else with_prefix(facts["macs"], "MAC")
    table.add_row("total", "", "", "", with_prefix(facts["parameters"]), macs, "", "")
    return table


def _tensor_table(tensors: Mapping[str, Mapping[str, Any]]) -> Table:
    table = new_table("tensors", "tensor", "shape", "parameters", "dtype")
    _fold_names(table)
    for name, tensor in tensors.items():
        row = (_by(tensor["shape"]) or "scalar", f"{tensor['parameters']:,}", tensor["dtype"])
        table.add_row(name, *row)
    return table


def _precision_table(precisions: Mapping[str, Mapping[str, str | None]]) -> Table:
    told = any(each["achieved"] for each in precisions.values())
    # No column in which every cell says "not told".
    table = new_table("layers", "layer", "asked", *(["achieved"] if told else []))
    _fold_names(table)
    for name, each in precisions.items():
        table.add_row(name, each["asked"], *([each["achieved"] or "not told"] if told else []))
    return table


def _range_table(tensors: Mapping[str, Mapping[str, Any]]) -> Table:
    table = new_table("ranges", "tensor", "min", "max", "bins")
    _fold_names(table)
    for name, seen in tensors.items():
        table.add_row(name, f"{seen['min']:.4g}", f"{seen['max']:.4g}", str(seen["bins"]))
    return table


def _fold_names(table: Table) -> None:
    """Folds long names, so that the numbers have room: names of tensors can be longer than a line."""
    table.columns[0].max_width, table.columns[0].overflow, table.columns[0].no_wrap = 40, "fold", False


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Returns a table with a row for each fact; a mapping or a list of mappings is spread over several lines."""
    table = PlainTable(title=heading(title), box=None, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key, _cell(value))
    return table


def _cell(value: Any) -> Text:
    if isinstance(value, Mapping):
        return lines(f"{key}: {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return lines(map(_inline, value))
    return plain(_inline(value))


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_inline(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def brief(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts that a person wants to see first; all of them are in the JSON that `inspect` prints."""
    short = {key: value for key, value in facts.items() if value not in (None, [], {})}
    if "tensors" in short:
        short["tensors"] = len(short["tensors"])
    if "layers" in short:
        quantized = sum(layer["precision"] == "int8" for layer in short["layers"])
        short["layers"] = (
            f"{len(short['layers'])}, {quantized} with Q/DQ for int8" if quantized else len(short["layers"])
        )
        short["macs"] = "not known" if facts["macs"] is None else with_prefix(facts["macs"], "MAC")
    if facts["kind"] in ("ONNX model", "engine", "simulation") and "shape" in short:
        short["shape"] = str(ImageShape(*short["shape"]))
    if facts["kind"] == "plan":
        short["profiles"] = [
            {key: str(ImageShape(*shape)) for key, shape in profile.items()} for profile in facts["profiles"]
        ]
        del short["precisions"]
    if "plan" in short:
        short["plan"] = plan_line(facts["plan"])
    if "parameters" in short:
        short["parameters"] = f"{short['parameters']:,}"
    if facts["kind"] == "checkpoint" and facts["layout"] is None:
        short["layout"] = "custom net"
    if "spec" in short:
        hidden = ("format", "palette", "classes")
        short["classes"] = ", ".join(short["spec"]["classes"])
        short["spec"] = {key: value for key, value in short["spec"].items() if key not in hidden and value is not None}
    if "sidecar" in short:
        sidecar = short.pop("sidecar")
        plan = facts["kind"] == "plan"
        short["io"], short["target"] = sidecar["io"], _gpus(sidecar["target"]) if plan else sidecar["target"]["cpu"]
        short["backend"] = f"{sidecar['backend']} {sidecar['library']}"
        precision = _precision(sidecar["precision"], by_layer=not plan)
        short |= {"precision": precision, "gate": sidecar["gate"] or "none recorded"}
        short["source"] = {key: value for key, value in sidecar["source"].items() if value is not None}
    return short


def _gpus(target: Mapping[str, Any]) -> str:
    """Says on which GPUs a plan runs."""
    gpus = ", ".join(target.get("gpu") or ()) or "what the library decides"
    return f"GPU, {gpus}{' and newer' if target.get('hardware_compatible') else ''}"


def _precision(precision: Mapping[str, Any], by_layer: bool) -> dict[str, Any]:
    if not by_layer:
        return {key: precision[key] for key in ("requested", "base", "achieved", "method") if precision[key]}
    layers: dict[str, list[str]] = {}
    for name, kind in precision["layers"].items():
        layers.setdefault(kind, []).append(name)
    known = {key: precision[key] for key in ("requested", "achieved", "method") if precision[key]}
    return {
        **known,
        **{f"{len(names)} layers in {kind}": names for kind, names in layers.items()},
        **_missed(precision),
    }


def _missed(precision: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the layers that run in another precision than was asked for them, by that precision."""
    missed: dict[str, list[str]] = {}
    for name, kind in (precision.get("achieved_layers") or {}).items():
        if kind not in (None, precision["layers"].get(name)):
            missed.setdefault(f"of these run in {kind}", []).append(name)
    return missed
