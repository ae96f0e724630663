"""`fcn-deploy doctor`."""

from __future__ import annotations

import click

from fcn_deploy.cli.console import print_json, print_table, say
from fcn_deploy.cli.options.groups import json_option


@click.command("doctor", short_help="Say what this machine can build and run.")
@json_option
def command(as_json: bool) -> None:
    """Say what this machine is, what is installed, what each library can build and run here, and what to install.

    A library that is missing or broken is reported, but is not a failure: the exit code is 0.
    """
    from fcn_deploy.workflows.inspecting import doctor

    checkup = doctor()
    if as_json:
        print_json(checkup.to_json())
        return
    from fcn_deploy.reporting.doctor import doctor_tables

    for table in doctor_tables(checkup):
        print_table(table)
        say("")
