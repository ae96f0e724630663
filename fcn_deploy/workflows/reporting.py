"""`report`: one HTML page of a deployment, made of its summary and of what stands beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fcn_deploy.artifacts.gallery import FOLDER, PICTURE, Gallery
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sensitivity import Sensitivity
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.errors import ArtifactError, DependencyError, InputError
from fcn_deploy.files import (
    StrPath,
    as_path,
    check_file,
    check_writable,
    is_broken_link,
    is_file,
    is_folder,
    make_folder,
    missing,
    read_bytes,
    read_json,
    reading,
    sha256_file,
    write_bytes,
    writing,
)
from fcn_deploy.installation import install_command
from fcn_deploy.reporting.gallery import is_small_picture
from fcn_deploy.reporting.html.evidence import Evidence
from fcn_deploy.workflows.parameters import output_file

PAGE, SUMMARY = "report.html", "summary.json"
RANGES, SENSITIVITY = ".ranges.json", ".sensitivity.json"
# The longest name of a file that a file system takes, in bytes.
_LONGEST = 255


def report(summary: StrPath, *, output: StrPath | None = None) -> Path:
    """Writes a report of a deployment: one HTML file that needs no network and no script.

    It shows what the summary says, with the pictures, the ranges and the sensitivity that stand beside it. Neither
    PyTorch nor an engine is needed.

    Args:
        summary: The folder that `deploy` or `finish` wrote, or the `summary.json` in it.
        output: The HTML file; `report.html` beside the summary if None.

    Returns:
        The file that was written.

    Raises:
        ArtifactError: The summary requires something that this version does not know.
        DependencyError: Jinja2 is not installed.
        InputError: The summary is missing or malformed, or a file cannot be read or written.
        UsageError: The output is not called `.html`.

    Example:
        >>> import fcn_deploy as fd
        >>> fd.report("out")
    """
    require_jinja2()
    file = as_path(summary, "summary")
    if is_folder(file):
        file = file / SUMMARY
    check_file(file)
    page = output_file(file.with_name(PAGE) if output is None else output, (".html",), reads=(file,))
    assert page is not None
    from fcn_deploy.reporting.html.page import render_page

    evidence = _evidence(file.parent, _read_summary(file))
    try:
        content = render_page(evidence)
    except OverflowError as error:
        raise InputError(f"{file} has a number that cannot be shown", got=str(error)) from error
    write_bytes(page, content.encode())
    return page


def require_jinja2() -> None:
    """Raises DependencyError if Jinja2 is not installed, which fills in the page."""
    try:
        import jinja2  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise DependencyError("a report needs Jinja2", got=str(error), fix=install_command("host")) from error


def _read_summary(file: Path) -> Summary:
    try:
        return Summary.from_json(read_json(file))
    except ArtifactError as error:
        raise ArtifactError(f"{file}: {error}") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _evidence(folder: Path, summary: Summary) -> Evidence:
    pictures, notes = _pictures(folder, summary.gallery)
    ranges, doubt = _ranges(folder, summary)
    path = _beside(folder, summary.variant + SENSITIVITY)
    sensitivity = None if path is None else Sensitivity.from_json(read_json(path))
    return Evidence(summary, pictures, ranges, sensitivity, (*notes, *doubt))


def _pictures(folder: Path, gallery: Gallery | None) -> tuple[Mapping[str, bytes], list[str]]:
    """Returns the pictures that are there, by name, and a note for those that are not."""
    if gallery is None:
        return {}, []
    found, missing, strange = {}, 0, 0
    for name in (name for image in gallery.images for name in image.pictures.values()):
        path = folder / FOLDER / name  # ShownImage has checked that it stays in the folder
        if not is_file(path):
            missing += 1
        elif is_small_picture(content := read_bytes(path)):
            found[name] = content
        else:
            strange += 1
    notes = []
    if missing:
        notes.append(f"{missing} of the pictures that the summary names are not in the folder {FOLDER}")
    if strange:
        notes.append(f"{strange} files in the folder {FOLDER} are not pictures of a deployment, and are not shown")
    return found, notes


def _ranges(folder: Path, summary: Summary) -> tuple[Ranges | None, list[str]]:
    """Returns the ranges that were calibrated for the deployment; or None, with a note if there are others."""
    path = _beside(folder, summary.variant + RANGES)
    if path is None:
        return None, []
    known = None if summary.origin is None else summary.origin.source.ranges_sha256
    if known is not None and sha256_file(path) != known:
        return None, [f"{path.name} is not the file that this deployment wrote, and is not shown"]
    return Ranges.load(path), []


def _beside(folder: Path, name: str) -> Path | None:
    """Returns a file in the folder; None if it is missing, or if its name would lead elsewhere."""
    if Path(name).name != name or "\0" in name or len(os.fsencode(name)) > _LONGEST:
        return None
    return folder / name if is_file(folder / name) else None


def check_report_files(folder: Path) -> None:
    """Checks, before work starts, that a report and its pictures can be written into a folder.

    Raises:
        InputError: They cannot.
    """
    check_writable(folder / PAGE)
    pictures = folder / FOLDER
    if is_folder(pictures):
        with reading(pictures):
            ours = [path for path in pictures.iterdir() if PICTURE.fullmatch(path.name)]
        for path in ours or [pictures / "00_image.jpg"]:
            check_writable(path)
    elif os.path.lexists(pictures):
        got = missing(pictures) if is_broken_link(pictures) else "a file"
        raise InputError(f"cannot write {pictures}", got=got, expected="a folder", fix="give it another name")


def write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Writes the pictures of a report, by name; none if there are none."""
    if pictures:
        make_folder(folder / FOLDER)
    for name, content in pictures.items():
        write_bytes(folder / FOLDER / name, content)


def remove_report(folder: Path) -> list[Path]:
    """Removes the report of an earlier deployment and its pictures.

    Returns:
        What was removed: the page, and the folder of the pictures.
    """
    page, pictures = folder / PAGE, folder / FOLDER
    removed = []
    if is_file(page):
        with writing(page):
            page.unlink()
        removed.append(page)
    if is_folder(pictures):
        ours = [path for path in pictures.iterdir() if PICTURE.fullmatch(path.name)]
        with writing(pictures):
            for path in ours:
                path.unlink()
            # A link to a folder of the user's stays: what is written next goes there too.
            if ours and not pictures.is_symlink() and not any(pictures.iterdir()):
                pictures.rmdir()
                removed.append(pictures)
    return removed
