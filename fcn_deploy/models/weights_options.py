"""What the user says about where the weights are in a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fcn_deploy.errors import UsageError


@dataclass(frozen=True)
class WeightsOptions:
    """Which part of a checkpoint holds the weights; nothing is needed if there is one answer.

    Attributes:
        key: The entry, such as `model_ema`; `outer.inner` for one within another.
        prefix: Only tensors under this prefix are taken, without it.
        ignore: Globs; entries whose key matches one are left out.
    """

    key: str | None = None
    prefix: str | None = None
    ignore: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str | None, prefix: str | None, ignore: Sequence[str] | str) -> WeightsOptions:
        """Makes it of a public function's parameters `weights_key`, `weights_prefix` and `weights_ignore`.

        Raises:
            UsageError: One of them is empty.
        """
        globs = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        for name, values in (("weights_key", (key,)), ("weights_prefix", (prefix,)), ("weights_ignore", globs)):
            if "" in values:
                raise UsageError(f"`{name}` is empty", fix="leave it out")
        return cls(key, prefix, globs)
