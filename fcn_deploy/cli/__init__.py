"""The command line: `fcn-deploy`."""

from fcn_deploy.cli.app import main

__all__ = ["main"]
