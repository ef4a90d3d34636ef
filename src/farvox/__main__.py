"""`python -m farvox` is the `farvox` program."""

from farvox.cli import main

main()
