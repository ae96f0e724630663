"""Clean environments, into which tests install what users install."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"


def build_distributions(folder: Path) -> tuple[Path, Path]:
    """Builds the sdist, and the wheel from it, as `make dist` does; returns both."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


class CleanEnvironment:
    """An environment with nothing installed, not even pip."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self._programs = folder / "bin"
        self._work = folder / "work"
        self._work.mkdir()

    def install(self, *arguments: object) -> None:
        """Runs `pip install`; skips the test if no package index answers."""
        python = self._programs / "python"
        # Not compiled: most of what is installed is never imported.
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", *arguments]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode and "connection broken" in done.stderr:
            pytest.skip("no package index can be reached")
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment, in an empty folder; nothing of this checkout is on its path."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [self._programs / program, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self._work, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
