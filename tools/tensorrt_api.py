"""Reads the Python API of TensorRT's libraries from their real bindings, on a machine that can run none of them.

    python tools/tensorrt_api.py -o tests/support/tensorrt_api.json

The bindings are small wheels beside those of the libraries, which are large, or not to be had here. Each is imported
against empty libraries, made by `cc`, that have the handful of functions which it links to: its classes, members and
signatures are there, and nothing of it can be called. What is written is what the tests check the package's calls
against: the signature of each name in tests/support/tensorrt_calls.py, and all other names, so that no call is
forgotten there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click

from fcn_deploy.files import write_bytes

_ROOT = Path(__file__).parents[1]

# The oldest version that is supported (JetPack 6), the last of each that changed what is used, and the newest.
_VERSIONS = ("10.3.0", "10.8.0.43", "10.13.3.9", "11.4.0.106")
_PACKAGES = {"tensorrt": "tensorrt-cu12-bindings", "tensorrt_lean": "tensorrt-lean-cu12-bindings"}
_RTX = [("tensorrt_rtx", "tensorrt-rtx-cu13-bindings", version) for version in ("1.4.0.76", "1.7.1.116")]
_LIBRARIES = ("nvinfer", "nvinfer_lean", "nvinfer_plugin", "nvonnxparser", "tensorrt_rtx", "tensorrt_onnxparser_rtx")
_SYMBOLS = (
    *(f"createInfer{made}_INTERNAL" for made in ("Builder", "Refitter", "Runtime")),
    *(f"createNvOnnxParser{made}_INTERNAL" for made in ("", "Refitter")),
    *("getBuilderPluginRegistry", "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)


def read_libraries(work: Path) -> dict[str, Any]:
    """Downloads and imports all bindings.

    Args:
        work: An empty folder.

    Returns:
        `libraries`: by name and version, the signature of each needed name that is there; "" for what is no function.
        A type that Python has no class for, so that no call that gives one can succeed, is written as in C++.
        `names`: every public name of a class or member in any of them, in alphabetical order.

    Raises:
        CalledProcessError: A wheel cannot be downloaded, or the compiler fails.
        FileNotFoundError: There is no compiler `cc`.
    """
    stubs = _make_stubs(work / "stubs")
    wanted = [(module, package, version) for module, package in _PACKAGES.items() for version in _VERSIONS]
    libraries, names = {}, set[str]()
    for module, package, version in (*wanted, *_RTX):
        folder = _download(f"{package}=={version}", work / f"{package}-{version}")
        (binding,) = folder.glob(f"{module}_bindings/*.so")
        described = _run([sys.executable, __file__, "--describe", module, str(binding)], {"LD_LIBRARY_PATH": stubs})
        found = json.loads(described)
        libraries[f"{module} {version}"] = found["signatures"]
        names.update(found["names"])
    return {"libraries": libraries, "names": sorted(names)}


def _make_stubs(folder: Path) -> str:
    """Makes an empty library of each name and major version; all have all symbols."""
    folder.mkdir()
    source = folder / "stub.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for library in _LIBRARIES:
        for major in ("1", "10", "11"):
            name = f"lib{library}.so.{major}"
            _run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)])
    return str(folder)


def _download(requirement: str, folder: Path) -> Path:
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), requirement])
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, check=True, capture_output=True)
    return done.stdout.decode()


def describe(name: str, binding: Path) -> dict[str, Any]:
    """Imports a binding and returns its `signatures` and `names`; see `read_libraries`."""
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    spec = spec_from_loader(name, loader := ExtensionFileLoader(name, str(binding)))
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    names = set(classes)
    for each in classes.values():
        names.update(member for member in dir(each) if not member.startswith("_"))
    sys.path.insert(0, str(_ROOT))
    from tests.support.tensorrt_calls import ALL

    signatures = {}
    for needed in sorted(ALL):
        owner, member = needed.split(".")
        if hasattr(classes.get(owner), member):
            signatures[needed] = _known_types(_signature(getattr(classes[owner], member)), classes)
    return {"signatures": signatures, "names": sorted(names)}


def _signature(member: Any) -> str:
    """The signatures of a function or of a property's getter, which their documentation begins with."""
    documented = member.fget if isinstance(member, property) else member
    lines = (line.strip() for line in (getattr(documented, "__doc__", None) or "").splitlines())
    return "; ".join(line for line in lines if "->" in line and "(" in line)


def _known_types(signature: str, classes: Collection[str]) -> str:
    """Writes C++ types by their Python names, if there are any: a class may follow the functions that return it."""

    def named(found: re.Match[str]) -> str:
        name = found[1]
        return next((each for each in (name, name.removeprefix("I")) if each in classes), found[0])

    return re.sub(r"nvinfer1::(\w+)", named, signature)


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The JSON file to write.")
@click.option("--describe", "described", nargs=2, hidden=True, help="A module and the file of its binding.")
def main(output: Path | None, described: tuple[str, str] | None) -> None:
    """Writes what the bindings have."""
    if described is not None:
        click.echo(json.dumps(describe(described[0], Path(described[1]))))
        return
    if output is None:
        raise click.UsageError("name the file to write: -o FILE")
    with tempfile.TemporaryDirectory() as work:
        write_bytes(output, (json.dumps(read_libraries(Path(work)), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
