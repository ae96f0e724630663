"""The command line: `fcn-deploy`."""

import sys

from fcn_deploy.dependencies import missing_package

__all__ = ["main"]


def main() -> None:
    """The console script. Without the extra `cli`, it says so in one line; the exit code is then 7."""
    try:
        from fcn_deploy.cli.app import main as run
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        sys.stderr.write(f"error: {missing}\n")
        sys.exit(missing.exit_code)
    run()
