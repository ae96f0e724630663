"""How to install what is missing, told by how this copy of the package was installed."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_NAME = "fcn-deploy"
_OF_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")


def install_command(extra: str, dist: Distribution | None = None) -> str:
    """Returns the command that installs the packages of an extra.

    The package's name with the extra is no help unless an index serves it: a copy that was installed from a checkout
    names the checkout, any other the packages themselves.

    Args:
        extra: Of pyproject.toml, such as `host` or `cpu`.
        dist: Metadata of the installed package; those of this one if None.
    """
    dist = dist or _own()
    if dist is None:  # a folder on the path, not an installed package
        return f"install the packages of the extra '{extra}' in pyproject.toml"
    checkout = _checkout(dist)
    if checkout is not None:
        return f"pip install --editable '{checkout}[{extra}]'"
    packages = packages_of(extra, dist.requires or ())
    return "pip install " + " ".join(f"'{package}'" for package in packages)


def command_elsewhere(*extras: str, dist: Distribution | None = None) -> str:
    """Returns the command that installs the packages of extras on another machine, which has no checkout.

    Args:
        extras: Of pyproject.toml, such as `cli` and `tensorrt-rtx`.
        dist: Metadata of the installed package; those of this one if None.
    """
    dist = dist or _own()
    requirements = () if dist is None else dist.requires or ()
    packages = [package for extra in extras for package in packages_of(extra, requirements)]
    if not packages:
        return f"install the packages of the extra '{','.join(extras)}' in pyproject.toml"
    return "pip install " + " ".join(f"'{package}'" for package in packages)


def packages_of(extra: str, requirements: Sequence[str]) -> list[str]:
    """Returns the requirements that an extra adds, without their markers: `onnxruntime>=1.22`."""
    found = []
    for requirement in requirements:
        package, _, marker = requirement.partition(";")
        match = _OF_EXTRA.search(marker)
        if match and match[1] == extra:
            found.append(package.strip())
    return found


@functools.cache
def _own() -> Distribution | None:
    # Imported here: what is installed is asked only after something was found missing.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution(_NAME)
    except PackageNotFoundError:
        return None


def _checkout(dist: Distribution) -> str | None:
    """The folder that an editable install points to, by direct_url.json (PEP 610)."""
    from urllib.parse import unquote, urlparse

    try:
        data = json.loads(dist.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    if not data.get("dir_info", {}).get("editable"):
        return None
    folder = unquote(urlparse(str(data.get("url", ""))).path)
    return folder if folder and Path(folder).is_dir() else None
