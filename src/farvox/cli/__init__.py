"""The `farvox` program: one verb a file; an error is one line, and the exit code tells what kind."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program; exits with 0 (done), 1 (the work failed, or some cases did) or 2 (wrong usage)."""
    from farvox.cli.app import app
    from farvox.errors import FarvoxError

    try:
        app()
    except FarvoxError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", 1)
    except MemoryError:
        _end("out of memory; to mend: smaller patches (--set patch.max_voxels=…) or a smaller --max-memory", 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _end(f"{error.filename or 'a file'}: {error.strerror or error}", 1)


def _end(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
