"""What `deploy` and `finish` print: the summary of a deployment, of one that missed a gate too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fcn_deploy.cli.console import print_json, print_table
from fcn_deploy.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from fcn_deploy.artifacts.summary import Summary
    from fcn_deploy.progress import Progress


def show_deployment(deployment: Callable[[Progress], Summary], as_json: bool) -> None:
    """Runs a deployment and prints its summary.

    Args:
        deployment: Returns the summary, and tells how far it is.
        as_json: Whether JSON is printed instead of a table.

    Raises:
        GateError: A gate was missed; what was measured has been printed.
    """
    from fcn_deploy.artifacts.summary import Summary
    from fcn_deploy.errors import GateError

    try:
        with TerminalProgress() as progress:
            summary = deployment(progress)
    except GateError as error:
        if isinstance(error.report, Summary):
            show_summary(error.report, as_json)
        raise
    show_summary(summary, as_json)


def show_summary(summary: Summary, as_json: bool) -> None:
    """Prints a summary, as a table or as JSON."""
    if as_json:
        print_json(summary.to_json())
        return
    from fcn_deploy.reporting.tables import summary_table

    print_table(summary_table(summary))
