"""What `doctor` finds, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from fcn_deploy._version import __version__
from fcn_deploy.reporting.tables import PlainTable, heading, lines

if TYPE_CHECKING:
    from fcn_deploy.diagnostics.checkup import Checkup
    from fcn_deploy.diagnostics.libraries import Library
    from fcn_deploy.diagnostics.machine import Machine, Nvidia

_LINE = 80  # characters


def doctor_tables(checkup: Checkup) -> list[Table]:
    """Returns the tables of a checkup, of at most 80 characters a line: machine, libraries, and what to mend."""
    engines = [library for library in checkup.libraries if library.engines]
    others = [library for library in checkup.libraries if not library.engines]
    tables = [_machine_table(checkup.machine), _engine_table(engines), _other_table(others)]
    advice = {library.name: _advice(library) for library in checkup.libraries if library.problem}
    return [*tables, _pairs("to do more here", advice)] if advice else tables


def _machine_table(machine: Machine) -> Table:
    cpu, nvidia = machine.cpu, machine.nvidia
    rows: dict[str, str | Text | None] = {
        "Python": machine.python,
        "system": machine.system,
        "board": machine.board,
        "CPU": f"{cpu.name}, {cpu.cores} core{'s' if cpu.cores > 1 else ''}",
        "INT8": cpu.int8,
        "NVIDIA driver": _driver(nvidia),
        "GPU": lines(
            f"{gpu.index}: {gpu.name}, architecture {gpu.compute_capability}, {gpu.memory / 2**30:.1f} GiB"
            for gpu in nvidia.gpus
        ),
    }
    return _pairs(f"fcn-deploy {__version__}", {key: value for key, value in rows.items() if value})


def _driver(nvidia: Nvidia) -> str:
    known = nvidia.driver or ("found, of unknown version" if nvidia.gpus else "")
    cuda = f"for CUDA {nvidia.cuda} and older" if nvidia.cuda else ""
    return "; ".join(text for text in (known, cuda, nvidia.problem) if text)


def _engine_table(libraries: Sequence[Library]) -> Table:
    table = _columns({"for engines": 16, "version": 20, "builds here": 14, "runs here": 19})
    for library in libraries:
        runs = lines(f"{device}: {' '.join(precisions)}" for device, precisions in library.runs)
        table.add_row(library.name, _version(library), " ".join(library.builds) or "-", runs or "-")
    return table


def _other_table(libraries: Sequence[Library]) -> Table:
    table = _columns({"else": 14, "version": 20, "what it is for": 40})
    for library in libraries:
        table.add_row(library.name, _version(library), library.role)
    return table


def _version(library: Library) -> str:
    return library.version or ("?" if library.installed else "-")


def _advice(library: Library) -> str:
    return f"{library.problem}; fix: {library.fix}" if library.fix else str(library.problem)


def _columns(columns: Mapping[str, int]) -> Table:
    """Returns an empty table; the greatest widths of its columns and the gaps between them fit into a line."""
    table = PlainTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column, width in columns.items():
        table.add_column(column, overflow="fold", max_width=width)
    return table


def _pairs(title: str, rows: Mapping[str, str | Text]) -> Table:
    table = PlainTable(
        title=heading(title), box=None, show_header=False, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", max_width=_LINE - max(map(len, rows)) - 1)
    for key, value in rows.items():
        table.add_row(key, value)
    return table
