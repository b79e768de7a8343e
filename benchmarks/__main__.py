"""Run benchmarks and write what they print to docs/benchmarks.md: all of them, or those that are named.

python -m benchmarks
python -m benchmarks throughput split
python -m benchmarks split --files 10000        # what follows a single name is for that benchmark
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import results
from stages.running.errors import UserError
from stages.running.parameters import closest
from stages.showing import machine
from stages.showing.command import command

PACKAGES = {
    "throughput": ("torch", "torchvision", "timm", "tensorflow", "keras", "airbench"),
    "transfer": ("torch", "timm", "pillow"),
    "stacking": ("numpy", "scipy", "scikit-learn", "xgboost"),
    "split": ("pillow", "torch", "torchvision"),
    "combiners": ("scikit-learn", "mlxtend", "xgboost", "scipy"),
    "folds": ("torch", "tensorflow", "keras"),
    "orchestration": ("dvc", "torch", "tensorflow", "keras", "xgboost"),
}
"""The benchmarks, and the packages whose versions matter to them."""


def chosen(names: Sequence[str]) -> list[str]:
    """The benchmarks to run, in their order. Raises UserError for a name that is not there."""
    for name in names:
        if name not in PACKAGES:
            raise UserError(f"there is no benchmark {name!r}{closest(name, list(PACKAGES))}")
    return [name for name in PACKAGES if not names or name in names]


def measured(name: str, options: Sequence[str]) -> str:
    """What one benchmark prints, under a line that says of what and how."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    shown = shlex.join(["python", "-m", f"benchmarks.{name}", *options])
    words = [sys.executable, "-m", f"benchmarks.{name}", *options]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{shown} ended with status {done.returncode}; {results.PAGE} keeps what it had")
    return f"{machine.when(PACKAGES[name])}. `{shown}`\n\n{done.stdout.strip()}"


@command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(PACKAGES)}; default: all")
    given, options = parser.parse_known_args()
    names = chosen(given.names)
    if options and len(names) != 1:
        parser.error(f"{shlex.join(options)} needs the name of one benchmark")
    for name in names:
        content = measured(name, options)
        print(content, end="\n\n", flush=True)
        results.write(results.PAGE, results.SECTIONS, name, machine.description(), content)


if __name__ == "__main__":
    main()
