"""Long work shows itself: a bar on a terminal, sparse plain lines in a log file or CI."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SPARSE = 15.0
"""Seconds between two plain lines where there is no terminal."""


class Bar:
    """Counts units of work and shows them: on a terminal by tqdm, elsewhere as a line now and then on stderr."""

    def __init__(self, total: float, unit: str, description: str) -> None:
        self.total, self.unit, self.description = total, unit, description
        self.done, self.note = 0.0, ""
        self.started = self.spoken = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm  # a tenth of a second, in every process

            self.bar = tqdm(total=total, desc=description, unit=f" {unit}", unit_scale=True, dynamic_ncols=True)

    def update(self, n: float, note: str = "") -> None:
        """`n` more units are done; `note` (such as a loss) replaces what stands behind the bar."""
        self.done += n
        self.note = note or self.note
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update(n)
        elif time.monotonic() - self.spoken >= SPARSE:
            self.say()

    def say(self) -> None:
        """One plain line: how far, how fast, how long still."""
        self.spoken = time.monotonic()
        rate = self.done / max(self.spoken - self.started, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        share = 100 * self.done / self.total if self.total else 100
        parts = [f"{self.description}: {share:.0f} %", f"{rate:,.0f} {self.unit}/s", f"{clock(left)} left", self.note]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.done:
            taken = time.monotonic() - self.started
            rate = self.done / max(taken, 1e-9)
            end = f"{self.description}: done in {clock(taken)}, {rate:,.0f} {self.unit}/s"
            print(", ".join(part for part in (end, self.note) if part), file=sys.stderr, flush=True)


@contextmanager
def bar(total: float, unit: str, description: str) -> Iterator[Bar]:
    """A `Bar` that is closed at the end, also of a failure. `unit` is a plural such as `images` or `bytes`."""
    shown = Bar(total, unit, description)
    try:
        yield shown
    finally:
        shown.close()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss; `?` where nothing is known yet."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
