"""Whether this machine is quiet enough for times to mean something."""

from __future__ import annotations

import os

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.diagnostics.machine import this_cpu


def timing_conditions(threads: int | None) -> Conditions:
    """Returns the conditions that a measurement begins under; to be called before other work adds to the load.

    Args:
        threads: CPU threads of an inference; None for the library's default.
    """
    cpu = this_cpu()
    return Conditions(threads, _load(), cpu.cores, cpu.name)


def timing_warnings(conditions: Conditions, machine_cores: int | None = None) -> tuple[str, ...]:
    """Returns what makes times doubtful, a sentence each.

    Args:
        conditions: Of the measurement.
        machine_cores: Cores of the whole machine, which its load is of; those of this one if None.
    """
    warnings, cores = [], machine_cores or os.cpu_count() or conditions.cores
    if conditions.load is not None and conditions.load > cores:
        warnings.append(
            f"the machine is busy: its load was {conditions.load:.1f} on {cores} cores before the measurement began; "
            "ratios hold better than times, and both are better measured on a quiet machine"
        )
    if conditions.threads is not None and conditions.threads > conditions.cores:
        warnings.append(
            f"`threads` {conditions.threads} is more than the {conditions.cores} cores that this process may use: "
            "threads wait for each other, and times are longer than with fewer"
        )
    return tuple(warnings)


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return None
