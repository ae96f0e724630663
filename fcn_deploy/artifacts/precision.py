"""Which precision was asked of a builder, and what the engine does, as a sidecar records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fcn_deploy.artifacts.json import known_fields
from fcn_deploy.errors import InputError

# The method of an engine whose scales were already in its model, which another tool had quantised.
PREQUANTIZED = "given"

# Keys that stand in the JSON only if there is something to say.
_OPTIONAL = ("audited", "kept_fp32", "achieved_layers", "bias_corrected", "weight_rounding", "tried", "budget", "tf32")


@dataclass(frozen=True)
class Budget:
    """The accuracy budget by which a mix of precisions was chosen.

    Attributes:
        criterion: Such as `agreement>=99%`.
        measured: The criterion's measure of the mix, on the images it was chosen on.
        bound: The pessimistic end of its 95% interval, which keeps the criterion.
        images: Number of these images.
    """

    criterion: str
    measured: float
    bound: float
    images: int

    def __post_init__(self) -> None:
        numbers = (self.measured, self.bound, self.images)
        if not isinstance(self.criterion, str) or not all(isinstance(number, int | float) for number in numbers):
            raise InputError("sidecar precision budget", got=repr(self), expected="a criterion and what was measured")


@dataclass(frozen=True)
class Precision:
    """What was asked of the builder and what the engine does.

    Attributes:
        requested: `fp32`, `fp16`, `bf16`, `int8` or `fp8`.
        base: What the layers that are not quantised run in.
        method: How ranges were chosen; `given` if the model already had its scales, None if nothing was quantised.
        layers: Precision asked for each quantisable layer.
        achieved: What an inspection of the engine found, or the log of its builder. `requested` again: every layer runs
            in what was asked for it. `partial`: the layers that are told of do, and not all are. `mixed`: a layer runs
            in something else. `unknown`: nothing tells, or of no layer.
        audited: Whether calibration was searched for values that FP16 cannot hold; None if nothing is FP16.
        kept_fp32: The tensors that stay FP32 for that reason, by name.
        achieved_layers: Precision that the inspection found for each layer, None for a layer it does not tell of; None
            if the layers were not inspected.
        tried: Agreement with the exported model, 0..1, by calibration method, if `auto` chose the method; else None.
        budget: The accuracy budget that chose the INT8 layers; None if there was none.
        bias_corrected: Whether biases make up for the rounding of weights; None if nothing was quantised, or it is not
            known.
        weight_rounding: How weights were rounded, `nearest` or `correlated`; None if nothing was quantised, or it is
            not known.
        tf32: Whether layers in FP32 may multiply in TF32; None if not.
    """

    requested: str
    base: str
    method: str | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    achieved: str = "unknown"
    audited: bool | None = None
    kept_fp32: tuple[str, ...] = ()
    achieved_layers: Mapping[str, str | None] | None = None
    tried: Mapping[str, float] | None = None
    budget: Budget | None = None
    bias_corrected: bool | None = None
    weight_rounding: str | None = None
    tf32: bool | None = None

    def __post_init__(self) -> None:
        if self.requested not in ("fp32", "fp16", "bf16", "int8", "fp8"):
            raise InputError("sidecar precision", got=repr(self.requested), expected="fp32, fp16, bf16, int8 or fp8")
        if not isinstance(self.layers, Mapping) or not all(isinstance(each, str) for each in self.layers.values()):
            raise InputError("sidecar precision of layers", got=repr(self.layers), expected="a precision by layer")
        if not isinstance(self.kept_fp32, tuple) or not all(isinstance(name, str) for name in self.kept_fp32):
            raise InputError("sidecar precision kept_fp32", got=repr(self.kept_fp32), expected="names of tensors")
        for key in ("audited", "bias_corrected", "tf32"):
            if getattr(self, key) not in (None, True, False):
                raise InputError(f"sidecar precision {key}", got=repr(getattr(self, key)), expected="true or false")
        if self.achieved_layers is not None and not isinstance(self.achieved_layers, Mapping):
            got = repr(self.achieved_layers)
            raise InputError("sidecar precision achieved_layers", got=got, expected="a precision by layer")
        tried = self.tried
        if tried is not None and not (
            isinstance(tried, Mapping) and all(isinstance(share, int | float) for share in tried.values())
        ):
            raise InputError("sidecar precision tried", got=repr(tried), expected="an agreement by method")
        if not isinstance(self.weight_rounding, str | None):
            got = repr(self.weight_rounding)
            raise InputError("sidecar precision weight_rounding", got=got, expected="the name of one")

    @property
    def gated_as(self) -> str:
        """The precision whose gate the engine has to meet: TF32 has the mantissa of FP16."""
        return "tf32" if self.requested == "fp32" and self.tf32 else self.requested

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data, without the keys that do not apply or are not known."""
        return {key: value for key, value in asdict(self).items() if key not in _OPTIONAL or value not in (None, ())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Precision:
        """Reads what `to_json` wrote.

        Raises:
            InputError: A value is bad.
        """
        known = known_fields(cls, data)
        if isinstance(known.get("kept_fp32"), list):
            known["kept_fp32"] = tuple(known["kept_fp32"])
        if known.get("budget") is not None:
            known["budget"] = Budget(**known_fields(Budget, known["budget"]))
        return cls(**known)
