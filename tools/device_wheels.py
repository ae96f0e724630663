"""Collects the wheels that a device without a network needs to run engines, also for a machine unlike this one.

    python tools/device_wheels.py dist/fcn_deploy-0.1.0-py3-none-any.whl --device raspberry-pi-13 -o dist

writes the folder dist/fcn-deploy-0.1.0-raspberry-pi-13: wheels, and a requirements.txt with their hashes. On the
device:

    pip install --no-index --find-links FOLDER -r FOLDER/requirements.txt

`make dist-device DEVICE=raspberry-pi-13` builds the wheel of fcn-deploy first. Needs Linux's pip and a package index.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from packaging.markers import Environment
from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_OLDEST_GLIBC = 17  # the minor version of manylinux2014


@dataclass(frozen=True)
class Device:
    """A Linux machine, as wheels name it.

    Attributes:
        machine: `x86_64` or `aarch64`.
        python: Its version, such as `3.11`.
        glibc: The version of its C library, such as `2.36`; a wheel for an older one fits too.
        extras: Of pyproject.toml.
    """

    machine: str
    python: str
    glibc: str
    extras: tuple[str, ...] = ("cli", "cpu")

    def __str__(self) -> str:
        """The device in words."""
        extras = ",".join(self.extras)
        return f"Linux on {self.machine}, glibc {self.glibc} or newer, Python {self.python}, extras {extras}"

    @property
    def platforms(self) -> list[str]:
        """The platforms whose wheels fit, the newest first. pip has to be told each."""
        newest = int(self.glibc.partition(".")[2])
        names = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
        return [*names, f"manylinux2014_{self.machine}"]

    @property
    def environment(self) -> Environment:
        """What markers of requirements ask, answered for the device."""
        return Environment(
            implementation_name="cpython",
            implementation_version=f"{self.python}.0",
            os_name="posix",
            platform_machine=self.machine,
            platform_python_implementation="CPython",
            platform_release="",
            platform_system="Linux",
            platform_version="",
            python_full_version=f"{self.python}.0",
            python_version=self.python,
            sys_platform="linux",
        )


DEVICES = {
    "raspberry-pi-12": Device("aarch64", "3.11", "2.36"),  # Raspberry Pi OS 12, 64 bit
    "raspberry-pi-13": Device("aarch64", "3.13", "2.41"),
    "jetson-6": Device("aarch64", "3.10", "2.35", ("cli", "cuda12")),  # TensorRT is a package of JetPack
    "jetson-7": Device("aarch64", "3.12", "2.39", ("cli", "cuda13")),
    "debian-12": Device("x86_64", "3.11", "2.36"),
    "debian-13": Device("x86_64", "3.13", "2.41"),
    "ubuntu-22.04": Device("x86_64", "3.10", "2.35"),
    "ubuntu-24.04": Device("x86_64", "3.12", "2.39"),
}


@dataclass(frozen=True)
class Wheel:
    """A wheel and what its metadata say.

    Attributes:
        path: The file.
        name: Of the package, in canonical form.
        version: Of the package.
        requirements: Of all extras, with their markers.
    """

    path: Path
    name: str
    version: Version
    requirements: tuple[Requirement, ...]

    def needs(self, extras: Iterable[str], device: Device) -> list[Requirement]:
        """Returns what the package needs on a device, with extras of its own."""
        asked = ["", *extras]
        return [
            requirement
            for requirement in self.requirements
            if requirement.marker is None
            or any(requirement.marker.evaluate({**device.environment, "extra": extra}) for extra in asked)
        ]


def read_wheel(path: Path) -> Wheel:
    """Reads the metadata of a wheel."""
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        found, _ = parse_email(archive.read(name))
    requirements = tuple(Requirement(text) for text in found.get("requires_dist", []))
    return Wheel(path, canonicalize_name(found["name"]), Version(found["version"]), requirements)


def pins(text: str, wheel: Wheel, device: Device) -> list[str]:
    """Returns the versions of constraints.txt for a device, without markers, which pip would ask of this machine.

    A version that the wheel's own requirements exclude is left out: the extra `cuda12` needs an older cuda-bindings.
    """
    asked = {canonicalize_name(need.name): need.specifier for need in wheel.needs(device.extras, device)}
    found = []
    for line in text.splitlines():
        if not (words := line.partition("#")[0].strip()):
            continue
        pin = Requirement(words)
        if pin.marker is not None and not pin.marker.evaluate({**device.environment, "extra": ""}):
            continue
        (version,) = (specifier.version for specifier in pin.specifier)
        name = canonicalize_name(pin.name)
        if name not in asked or asked[name].contains(version):
            found.append(f"{name}=={version}")
    return found


def closure(wheels: Iterable[Wheel], root: str, device: Device) -> tuple[list[Wheel], list[Requirement]]:
    """Follows requirements, from a wheel with the device's extras.

    Args:
        wheels: What is there, one of each package.
        root: The name of the one to begin with.
        device: For which markers are answered.

    Returns:
        The wheels that are needed, by name, and the requirements that none of them fulfils.
    """
    by_name = {wheel.name: wheel for wheel in wheels}
    needed: dict[str, Wheel] = {}
    lacking: dict[str, Requirement] = {}
    ahead = [(by_name[root], frozenset(device.extras))]
    seen = set()
    while ahead:
        wheel, extras = ahead.pop()
        needed[wheel.name] = wheel
        for need in wheel.needs(extras, device):
            found = by_name.get(canonicalize_name(need.name))
            if found is None or not need.specifier.contains(found.version, prereleases=True):
                lacking[str(need)] = need
            elif (step := (found, frozenset(need.extras))) not in seen:
                seen.add(step)
                ahead.append(step)
    return [needed[name] for name in sorted(needed)], list(lacking.values())


def collect(wheel: Path, device: Device, folder: Path) -> list[Wheel]:
    """Downloads what a wheel needs on a device, and returns it with the wheel.

    pip answers the markers of requirements for this machine. What is lacking on the device is therefore asked for by
    name, until nothing is.

    Args:
        wheel: Of fcn-deploy.
        device: Where it is to be installed.
        folder: Empty; gets the wheels.

    Raises:
        click.ClickException: pip finds no wheels that fit.
    """
    root = read_wheel(wheel)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins(CONSTRAINTS.read_text(), root, device)))
    wanted = [f"{root.name}[{','.join(device.extras)}] @ {wheel.resolve().as_uri()}"]
    while True:
        _download(wanted, constraints, device, folder)
        found, lacking = closure(map(read_wheel, folder.glob("*.whl")), root.name, device)
        if not lacking:
            return found
        asked = [str(without_marker(need)) for need in lacking]
        if set(asked) <= set(wanted):
            raise click.ClickException(f"no wheel fulfils {', '.join(asked)} on {device}")
        wanted += asked


def without_marker(requirement: Requirement) -> Requirement:
    """Returns a requirement without its marker."""
    bare = Requirement(str(requirement))
    bare.marker = None
    return bare


def _download(wanted: Sequence[str], constraints: Path, device: Device, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--dest", folder, "--only-binary=:all:"]
    fitting = [f"--platform={name}" for name in device.platforms]
    version = ["--implementation=cp", f"--python-version={device.python}"]
    done = subprocess.run([*command, *fitting, *version, "--constraint", constraints, *wanted], check=False)
    if done.returncode:
        raise click.ClickException(f"pip finds no wheels for {device}; its messages are above")


def requirements_text(wheels: Sequence[Wheel], device: Device) -> str:
    """Returns a requirements.txt that installs these wheels and no other files, by their hashes."""
    lines = [
        f"# For {device}.",
        "# In this folder: pip install --no-index --find-links . -r requirements.txt",
    ]
    for wheel in wheels:
        digest = hashlib.sha256(wheel.path.read_bytes()).hexdigest()
        extras = f"[{','.join(device.extras)}]" if wheel.name == "fcn-deploy" else ""
        lines.append(f"{wheel.name}{extras}=={wheel.version} --hash=sha256:{digest}")
    return "\n".join(lines) + "\n"


def write_folder(wheel: Path, device: Device, folder: Path) -> None:
    """Writes the folder for a device, in place of what was there.

    Args:
        wheel: Of fcn-deploy.
        device: Where it is to be installed.
        folder: What is written; it appears when it is complete.

    Raises:
        click.ClickException: pip finds no wheels that fit.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        downloaded, complete = Path(scratch, "downloaded"), Path(scratch, "complete")
        downloaded.mkdir()
        complete.mkdir()
        wheels = []
        for found in collect(wheel, device, downloaded):
            shutil.move(found.path, complete)
            wheels.append(replace(found, path=complete / found.path.name))
        (complete / "requirements.txt").write_text(requirements_text(wheels, device))
        if folder.exists():
            shutil.rmtree(folder)
        complete.rename(folder)


def this_machine() -> Device:
    """Returns this machine as a device.

    Raises:
        click.UsageError: It is not Linux with glibc.
    """
    library, glibc = platform.libc_ver()
    if library != "glibc":
        raise click.UsageError("this machine is not Linux with glibc; name another one with --device")
    return Device(platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}", glibc)


@click.command(help=__doc__.partition("\n")[0] if __doc__ else None)
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", type=click.Choice(["here", *DEVICES]), default="here", show_default=True)
@click.option("--machine", type=click.Choice(["x86_64", "aarch64"]), help="Another processor than the device's.")
@click.option("--python", metavar="X.Y", help="Another version of Python than the device's.")
@click.option("--glibc", metavar="X.Y", help="Another version of the C library than the device's.")
@click.option("--extras", metavar="A,B", help="Other extras than the device's, such as cli,openvino.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default="dist", show_default=True)
def main(
    wheel: Path,
    device: str,
    machine: str | None,
    python: str | None,
    glibc: str | None,
    extras: str | None,
    output: Path,
) -> None:
    """Collects the wheels for one device."""
    chosen = this_machine() if device == "here" else DEVICES[device]
    changes: dict[str, object] = {"machine": machine, "python": python, "glibc": glibc}
    changes["extras"] = tuple(extras.split(",")) if extras else None
    chosen = replace(chosen, **{name: value for name, value in changes.items() if value})
    changed = [word for word in (machine, python and f"py{python}", glibc and f"glibc{glibc}", extras) if word]
    name = "-".join(["fcn-deploy", str(read_wheel(wheel).version), device, *changed])
    write_folder(wheel, chosen, output / name)
    sizes = [file.stat().st_size for file in (output / name).glob("*.whl")]
    click.echo(f"{output / name}: {len(sizes)} wheels, {sum(sizes) / 1e6:.1f} MB, for {chosen}")


if __name__ == "__main__":
    main()
