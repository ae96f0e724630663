"""PyAV, the library that reads and writes video: FFmpeg's libraries, called in this process."""

from __future__ import annotations

from types import ModuleType
from typing import Any, BinaryIO

from fcn_deploy.errors import DependencyError
from fcn_deploy.installation import install_command

# FFmpeg's names of the containers that are read. Others, such as playlists and lists of files, open further files and
# addresses that their content names.
CONTAINERS = (
    *("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "mxf", "nut", "ivf"),
    *("h264", "hevc", "obu", "m4v", "mjpeg", "yuv4mpegpipe", "dv"),
)


def load_av() -> ModuleType:
    """Imports PyAV.

    Raises:
        DependencyError: It is not installed, or cannot be loaded.
    """
    try:
        import av
    except ImportError as error:
        raise DependencyError("video needs PyAV", got=str(error), fix=install_command("video")) from error
    return av


def open_container(source: BinaryIO | str, **options: Any) -> Any:
    """Opens a container for reading; words in it that are not UTF-8 are no error.

    Args:
        source: A file, or an address.
        options: Of `av.open`.

    Returns:
        PyAV's InputContainer.
    """
    av = load_av()
    if int(av.__version__.partition(".")[0]) < 19:  # later ones do so by themselves
        options["metadata_errors"] = "replace"
    return av.open(source, **options)


def has_av() -> bool:
    """Returns whether PyAV can be loaded."""
    try:
        load_av()
    except DependencyError:
        return False
    return True


def reason(error: Exception) -> str:
    """Returns what FFmpeg says, without the number of the error and the name of the file."""
    return getattr(error, "strerror", None) or str(error)
