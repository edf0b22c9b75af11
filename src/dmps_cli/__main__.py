"""`python -m dmps_cli`."""

from dmps_cli.cli.main import main

main()
