"""What was deployed from what: files, hashes, versions, and the command that repeats it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from fcn_deploy.artifacts.summary import Summary


@dataclass(frozen=True)
class Fact:
    """Something the page states: a name, what it is, and a hash or None."""

    name: str
    text: str
    sha256: str | None = None


def command(summary: Summary) -> str | None:
    """Returns the command line that repeats a deployment; None if it is not known."""
    words = () if summary.origin is None else summary.origin.command
    return shlex.join(words) if words else None


def files(summary: Summary) -> tuple[Fact, ...]:
    """Returns the files that went in and came out, with the hashes that are known."""
    origin, facts = summary.origin, []
    if origin is not None:
        checkpoint, source = origin.spec.checkpoint, origin.source
        if checkpoint is not None:
            facts.append(Fact("weights", f"layout {checkpoint.layout}", checkpoint.sha256))
        facts.append(Fact("exported model", summary.model, source.onnx_sha256))
        if source.ranges_sha256 is not None:
            facts.append(Fact("ranges", f"{summary.variant}.ranges.json", source.ranges_sha256))
    else:
        facts.append(Fact("exported model", summary.model))
    written = "" if summary.passed else " (not written)"
    for each in summary.engines:
        kept = "" if each.gate.passed and (summary.passed or summary.gpu is not None) else written
        facts.append(Fact(f"{each.precision.upper()} engine", f"{each.file}{kept}", each.sha256))
    return tuple(facts)


def facts(summary: Summary) -> tuple[Fact, ...]:
    """Returns what else the figures depend on."""
    origin, found = summary.origin, [Fact("fcn-deploy", summary.version)]
    if origin is not None:
        spec = origin.spec
        found += [Fact(name, version) for name, version in origin.made_with.items()]
        exporter = ", ".join(f"{name} {value}" for name, value in spec.exporter.items())
        found += [Fact("exported with", exporter)] if exporter else []
        found.append(Fact("classes", str(spec.num_classes)))
    observed, judged = (summary.calibration.get(key, 0) for key in ("observed", "judged"))
    found.append(Fact("images", f"{observed} observed for the ranges, {judged} for the gates"))
    found.append(Fact("export error", f"{summary.export_error:.2g} of the range of the logits, against PyTorch"))
    if (norm := summary.normalization) is not None:
        mean, std = (", ".join(f"{each:g}" for each in triple) for triple in (norm.mean, norm.std))
        how = f"{norm.color}, scale {norm.scale:g}, mean {mean}, std {std}"
        found.append(Fact("normalisation", f"{how}{' (assumed)' if norm.assumed else ''}"))
    if summary.resumed:
        found.append(Fact("taken over", f"from an earlier run: {', '.join(summary.resumed)}"))
    return tuple(found)
