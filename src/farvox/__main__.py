"""`python -m farvox` is the `farvox` program."""

from farvox.cli import main

if __name__ == "__main__":
    main()
