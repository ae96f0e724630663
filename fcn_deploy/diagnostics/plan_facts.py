"""What `inspect` says of the layers of a plan, as plain facts."""

from __future__ import annotations

from typing import Any

from fcn_deploy.artifacts.plan import Plan
from fcn_deploy.engines.tensorrt.traffic import Step, Traffic, traffic_of


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Returns who told of the plan, what it moves in all, and a row for each of its layers, as JSON data."""
    traffic = traffic_of(plan)
    return {
        "source": plan.source,
        "kernels": len(traffic.steps),
        "reformats": traffic.reformats,
        "second_copies": traffic.second_copies,
        "profiles": traffic.profiles,
        "moved_bytes": traffic.moved,
        "layers": [_row(traffic, step) for step in traffic.steps],
    }


def _row(traffic: Traffic, step: Step) -> dict[str, Any]:
    tensors, layer = traffic.plan.tensors, step.layer
    return {
        "name": layer.name,
        "kind": layer.kind,
        "role": step.role,
        "kernel": layer.kernel,
        "nodes": list(layer.nodes),
        "belongs_to": traffic.steps[step.head].layer.name,
        "reads": [str(tensors[name]) for name in layer.reads],
        "writes": [str(tensors[name]) for name in layer.writes],
        "bytes_per_element": step.bytes_per_element,
        "second_copies": step.copies,
    }
