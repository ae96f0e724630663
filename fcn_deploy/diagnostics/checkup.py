"""What `doctor` finds: the machine, the libraries, and what to install."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy._version import __version__
from fcn_deploy.artifacts.json import FORMAT
from fcn_deploy.diagnostics.libraries import Library, find_libraries
from fcn_deploy.diagnostics.machine import Machine, this_machine
from fcn_deploy.text import printable


@dataclass(frozen=True)
class Checkup:
    """A machine and the libraries on it.

    Attributes:
        machine: The machine.
        libraries: Every library that this package can use, also those that are missing.
    """

    machine: Machine
    libraries: tuple[Library, ...]

    def __repr__(self) -> str:
        installed = [library.name for library in self.libraries if library.installed]
        return printable(
            f"Checkup({self.machine.cpu.name}, {len(self.machine.nvidia.gpus)} GPUs, {', '.join(installed)})"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data, with its format number."""
        machine = asdict(self.machine)
        machine["cpu"]["int8"] = self.machine.cpu.int8
        libraries = [{**asdict(library), "runs": dict(library.runs)} for library in self.libraries]
        return {"format": FORMAT, "fcn_deploy": __version__, **machine, "libraries": libraries}


def check_up() -> Checkup:
    """Describes this machine and what is installed on it."""
    machine = this_machine()
    return Checkup(machine, find_libraries(machine))
