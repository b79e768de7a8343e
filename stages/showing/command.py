"""How a step's `main` meets the shell: a mistake of the user is one message and exit status 1, without a traceback."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from stages.running import threads
from stages.running.errors import UserError, gist, is_out_of_memory, refused

Arguments = ParamSpec("Arguments")
INTERRUPTED = 130
"""The exit status that shells expect after Ctrl-C."""

os.environ.update(threads.waiting())  # libraries read it when they are loaded, which no step does before this


def command(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Wrap a step's `main`: UserError, Ctrl-C, a refusal of the system and no memory end it with a message alone."""

    @functools.wraps(main)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            sys.exit(f"error: {error}{undoing(str(error))}")
        except KeyboardInterrupt:
            print("interrupted; run `dvc repro` again, finished folds are kept", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if is_out_of_memory(error):
                sys.exit(f"error: memory ran out ({gist(error)}); free some and run again, finished work is kept")
            if (words := refused(error)) is None:
                raise
            sys.unraisablehook = lambda _: None  # HDF5 complains once more for every object that it closes
            sys.exit(f"error: {words}")

    return wrapped


def undoing(message: str) -> str:
    """How to be rid of a parameter that was refused: `dvc exp run -S` writes it into params.yaml before any step runs.

    Not in a queued or --temp experiment, where that file is a copy which goes with the experiment.
    """
    root = os.environ.get("DVC_ROOT")
    if "DVC_EXP_NAME" not in os.environ or root is None or Path(root).resolve() != Path.cwd():
        return ""
    if not message.startswith("params: "):
        return ""
    return "\nWhat -S set stays in params.yaml: change it there, or `git checkout params.yaml` takes back what it had"
