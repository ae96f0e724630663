"""The CPU that an engine is built for: stated, or that of this machine; and the weights that it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from fcn_deploy.engines.config import TargetCpu
from fcn_deploy.errors import UsageError
from fcn_deploy.runtime.cpu import exact_8_bits

_log = logging.getLogger(__name__)


def resolve_target(target: TargetCpu, detect: Callable[[], bool | None] = exact_8_bits) -> TargetCpu:
    """Returns the CPU to build for: `native` becomes what this machine's CPU is, `generic` or `vnni`.

    Args:
        target: What was asked for.
        detect: Returns whether weights of all 8 bits are exact on this machine's CPU; None if that is not known.

    Raises:
        UsageError: `native` on a system that does not tell.
    """
    if target != "native":
        return target
    exact = detect()
    if exact is None:
        raise UsageError(
            "this system does not tell what its CPU has", got='`target_cpu="native"`', expected="generic or vnni"
        )
    _log.info("target CPU: this machine's, %s", "vnni" if exact else "generic: it has no VNNI")
    return "vnni" if exact else "generic"


def weight_limit(target: TargetCpu) -> Literal[64, 127]:
    """Returns the largest absolute value of the int8 weights that are right on every CPU of a target.

    Args:
        target: `generic` or `vnni`, as `resolve_target` gives it.
    """
    return 127 if target == "vnni" else 64
