"""The `farvox` program: one command a file; an error is one line with an exit code."""

from __future__ import annotations

import sys

_NO_MEMORY = "out of memory; hint: smaller patches (--set patch.max_voxels=…), or predict with a smaller --max-memory"


def main() -> None:
    """Run the program; exits with 0 (done), 1 (the work failed, or some cases did) or 2 (wrong usage)."""
    from farvox.cli.app import app
    from farvox.errors import FarvoxError, is_out_of_memory

    try:
        app()
    except FarvoxError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _end(_NO_MEMORY, 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _end(f"{error.filename or 'a file'}: {error.strerror or error}", 1)


def _end(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
