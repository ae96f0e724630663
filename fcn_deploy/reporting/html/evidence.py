"""What a page is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sensitivity import Sensitivity
from fcn_deploy.artifacts.summary import Summary


@dataclass(frozen=True)
class Evidence:
    """A summary, and what stands beside it.

    Attributes:
        summary: Says what there is to say.
        pictures: The content of those of its pictures that are there, by name.
        ranges: That were calibrated, if they are there.
        sensitivity: What INT8 costs in each layer, if that was measured.
        notes: What the reader must know of the files beside the summary, a sentence each.
    """

    summary: Summary
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    ranges: Ranges | None = None
    sensitivity: Sensitivity | None = None
    notes: tuple[str, ...] = ()
