"""Long work shows itself: a bar on a terminal, sparse plain lines in a log file or CI."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SPARSE = 15.0
"""Seconds between two plain lines where there is no terminal, and those that the rate of now is taken over."""
MOST_SEEN, RECENT = 1000, 400
"""Moments that are remembered, and those of them that are never thinned out."""
SHAPE = "{desc}: {percentage:3.0f}%|{bar}| {postfix}"
"""Of the bar on a terminal."""


class Pace:
    """How fast work goes, from how much of it was done when. The clock starts with the first work that is done:
    importing, compiling and reading come before it once, and would count as slow work for all the rest."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def add(self, done: float) -> None:
        """So much is done by now."""
        self.seen.append((time.monotonic(), done))
        if len(self.seen) > MOST_SEEN:
            del self.seen[1:-RECENT:2]

    def over(self, seconds: float) -> float:
        """Units per second of the last so many seconds; 0 where too little is known."""
        (end, done), start = self.seen[-1], self.seen[0]
        for moment in reversed(self.seen):
            start = moment
            if end - moment[0] >= seconds:
                break
        return (done - start[1]) / (end - start[0]) if end > start[0] else 0.0


class Bar:
    """Counts units of work and shows them: on a terminal by tqdm, elsewhere as a line now and then on stderr.

    The rate is that of now, the time that is left goes by all that was done: every fold begins with a pause, some grow
    their images or train a part of the network first, so that the moment says little of the rest.
    """

    def __init__(self, total: float, unit: str, description: str) -> None:
        self.total, self.unit, self.description = total, unit, description
        self.done, self.note = 0.0, ""
        self.started = self.spoken = time.monotonic()
        self.pace = Pace()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm  # a tenth of a second, in every process

            self.bar = tqdm(total=total, desc=description, bar_format=SHAPE, dynamic_ncols=True)

    def update(self, n: float, note: str = "") -> None:
        """`n` more units are done; `note` (such as a loss) replaces what stands behind the bar."""
        self.done += n
        self.note = note or self.note
        self.pace.add(self.done)
        if self.bar is not None:
            self.bar.set_postfix_str(self.standing(), refresh=False)
            self.bar.update(n)
        elif time.monotonic() - self.spoken >= SPARSE:
            self.say()

    def standing(self) -> str:
        """How fast, how long still, and the note."""
        rate = self.pace.over(SPARSE)
        parts = [f"{rate:,.0f} {self.unit}/s" if rate else "", f"{clock(self.left())} left", self.note]
        return ", ".join(part for part in parts if part)

    def left(self) -> float:
        """Seconds."""
        rate = self.pace.over(float("inf"))
        return max(self.total - self.done, 0.0) / rate if rate else float("inf")

    def say(self) -> None:
        """One plain line: how far, how fast, how long still."""
        self.spoken = time.monotonic()
        share = 100 * self.done / self.total if self.total else 100
        print(f"{self.description}: {share:.0f} %, {self.standing()}", file=sys.stderr, flush=True)

    def close(self, *, ended: bool = True) -> None:
        """`ended`: whether all went well; else nothing is said of how long it took."""
        if self.bar is not None:
            self.bar.close()
        elif self.done and ended:
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
    except BaseException:
        shown.close(ended=False)
        raise
    shown.close()


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss; `?` where nothing is known yet."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
