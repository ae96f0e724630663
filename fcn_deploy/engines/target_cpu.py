"""The CPU that an engine is built for: stated, or that of this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fcn_deploy.engines.config import TargetCpu
from fcn_deploy.errors import UsageError
from fcn_deploy.runtime.cpu import has_vnni

_log = logging.getLogger(__name__)


def resolve_target(target: TargetCpu, detect: Callable[[], bool | None] = has_vnni) -> TargetCpu:
    """Returns the CPU to build for: `native` becomes what this machine's CPU is, `generic` or `vnni`.

    Args:
        target: What was asked for.
        detect: Returns whether this machine's CPU has VNNI; None if the system does not tell.

    Raises:
        UsageError: `native` on a system that does not tell.
    """
    if target != "native":
        return target
    vnni = detect()
    if vnni is None:
        raise UsageError(
            "this system does not tell what its CPU has", got='`target_cpu="native"`', expected="generic or vnni"
        )
    _log.info("target CPU: this machine's, %s", "vnni" if vnni else "generic: it has no VNNI")
    return "vnni" if vnni else "generic"
