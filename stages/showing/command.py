"""How a step's `main` meets the shell: a mistake of the user is one message and exit status 1, without a traceback."""

import errno
import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from stages.running.errors import UserError

Arguments = ParamSpec("Arguments")


def command(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Wrap a step's `main`: UserError and a full disk end the process with their message alone."""

    @functools.wraps(main)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f" while writing {error.filename}" if error.filename else ""
            sys.exit(f"error: the disk is full{where}; free some space and run again, finished work is kept")

    return wrapped
