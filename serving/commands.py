"""How the commands meet the shell: a mistake of the user, and a disk that is full or fails, is one line and exit
status 1, without a traceback."""

import functools
import sys
from collections.abc import Callable

from stages.running.errors import UserError, refused

INTERRUPTED = 130
"""The exit status that shells expect after Ctrl-C."""


def command(main: Callable[[], None]) -> Callable[[], None]:
    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except UserError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("interrupted; the same command goes on where this one ended", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if (words := refused(error)) is None:
                raise
            sys.exit(f"error: {words}")

    return wrapped
