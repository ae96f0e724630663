"""After the tests of public nets: the table of docs/models.md, from what was found."""

from __future__ import annotations

_HEAD = """\
| net | library | option | error of the export | SQNR of INT8 logits, dB | layers in INT8 |
|---|---|---|---|---|---|"""


def pytest_terminal_summary(terminalreporter) -> None:  # type: ignore[no-untyped-def]
    reports = (report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, ()))
    found = [(report.nodeid, dict(report.user_properties).get("outcome")) for report in reports]
    rows = [_row(nodeid, *outcome) for nodeid, outcome in found if outcome]
    if rows:
        terminalreporter.section("public nets")
        terminalreporter.write_line("\n".join([_HEAD, *rows]))


def _row(nodeid, library, outcome) -> str:  # type: ignore[no-untyped-def]
    name = nodeid.rpartition("[")[2].rstrip("]")
    options = [f"`--{option.replace('_', '-')} {value}`" for option, value in outcome.named.items()]
    sqnr = " / ".join(f"{value:.1f}" for value in outcome.sqnr)
    return (
        f"| `{name}` | {library} | {' and '.join(options) or 'none'} | {outcome.export_error:.1e} | {sqnr} "
        f"| {outcome.int8_layers} of {outcome.layers} |"
    )
