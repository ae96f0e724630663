"""A contestant of bench_peers.py in a process of its own, seen from the process that asks it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape

SCRIPTS = Path(__file__).parent


@dataclass(eq=False)
class Peer:
    """A contestant in a process of its own.

    Attributes:
        name: The contestant's.
        process: That answers.
        net_ms: Milliseconds of the net alone, of every run so far.
    """

    name: str
    process: subprocess.Popen[str]
    net_ms: list[float] = field(default_factory=list)

    @classmethod
    def open(cls, python: Path, name: str, folder: Path, shape: ImageShape, threads: int) -> Peer:
        """Starts the process, and waits until its net is open.

        Raises:
            ClickException: It ends instead; the message is the last line of what it said.
        """
        command = [str(python), str(SCRIPTS / "peer_worker.py"), name, str(folder), str(shape), str(threads)]
        log = folder / f"{name}.log"
        with log.open("w") as said:
            process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        peer = cls(name, process)
        assert process.stdout is not None
        if not process.stdout.readline():
            peer.close()
            raise click.ClickException((log.read_text().strip().splitlines() or ["it ended without a word"])[-1])
        return peer

    def run(self, images: Path, *, timed: bool = True) -> None:
        """Runs a batch once."""
        answer = self._ask({"run": str(images)})
        if timed:
            self.net_ms.append(answer["net_ms"])

    def labels(self, path: Path) -> NDArray[Any]:
        """Returns the labels of the last run, by way of a file."""
        self._ask({"save": str(path)})
        return np.load(path)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):  # of one that has ended by itself
            self.process.communicate()

    def _ask(self, request: Mapping[str, str]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise click.ClickException(f"{self.name} ended with {self.process.wait()}")
        return json.loads(answer)  # type: ignore[no-any-return]
