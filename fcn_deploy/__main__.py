"""`python -m fcn_deploy`."""

from fcn_deploy.cli import main

main()
