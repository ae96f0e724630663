"""Under which conditions times were measured, as JSON has them beside the times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy.artifacts.json import integer, optional_number


@dataclass(frozen=True)
class Conditions:
    """The machine that times were measured on, and what else it did.

    Attributes:
        threads: CPU threads of an inference; None for the library's default.
        load: Load average of the last minute before the measurement, over all cores: how many processes ran or waited
            to run. None if the system does not say.
        cores: Number of cores that this process may use.
        cpu: The processor, as the system calls it.
    """

    threads: int | None
    load: float | None
    cores: int
    cpu: str

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conditions | None:
        """Reads it from a document that `to_json` is part of; None if it is of a version that did not state them.

        Raises:
            InputError: A value is bad.
            KeyError: A key is missing.
        """
        if "load" not in data:
            return None
        threads = data["threads"]
        return cls(
            threads=None if threads is None else integer(threads, "threads"),
            load=optional_number(data["load"], "load"),
            cores=integer(data["cores"], "cores"),
            cpu=str(data["cpu"]),
        )

    def __str__(self) -> str:
        threads = "default threads" if self.threads is None else counted(self.threads, "thread")
        load = "unknown" if self.load is None else f"{self.load:.2f}"
        return f"{threads}, load {load} before the start, {counted(self.cores, 'core')} of {self.cpu}"


def counted(count: int, noun: str) -> str:
    """Returns a number of things in words: `1 thread`, `2 threads`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
