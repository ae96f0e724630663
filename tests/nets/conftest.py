"""After the tests of public nets: a table of what was found."""

from __future__ import annotations

_HEAD = """\
| net | library | option | error of the export | of the FP32 engine | SQNR in INT8, dB | convolutions in INT8 |
|---|---|---|---|---|---|---|"""


def pytest_terminal_summary(terminalreporter) -> None:  # type: ignore[no-untyped-def]
    reports = (report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, ()))
    found = {report.nodeid: dict(report.user_properties).get("outcome") for report in reports}
    rows = [
        _row(nodeid.rpartition("[")[2].rstrip("]"), outcome) for nodeid, outcome in sorted(found.items()) if outcome
    ]
    if rows:
        terminalreporter.section("public nets")
        terminalreporter.write_line("\n".join([_HEAD, *rows]))


def _row(name, outcome) -> str:  # type: ignore[no-untyped-def]
    options = [f"`--{option.replace('_', '-')} {value}`" for option, value in outcome["named"].items()]
    cells = (
        f"`{name}`",
        outcome["library"].replace("_", "-"),
        " and ".join(options) or "none",
        f"{outcome['export_error']:.1e}",
        f"{outcome['error']:.1e}",
        " / ".join(f"{value:.1f}" for value in outcome["sqnr"]),
        f"{outcome['int8_convolutions']} of {outcome['convolutions']}",
    )
    return f"| {' | '.join(cells)} |"
