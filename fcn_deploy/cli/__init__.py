"""The command line: `fcn-deploy`."""

from fcn_deploy.cli.main import main

__all__ = ["main"]
