"""Micro-batches: while the networks are busy, images of all requests gather; what has gathered goes through together.

Nothing waits for company where the networks are free, so that a lone request is as quick as without. The queue is
bounded, and so is the time that an image may spend in it.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import numpy as np

from serving.server.refusals import RefusedError

Given = TypeVar("Given")
Said = TypeVar("Said")
Ask = Callable[[Any], Sequence[Said | Exception]]
"""From images that go together, as an array [n, ...] unless `together` makes something else of them, to what is said of
each."""
SMOOTHING = 0.1
"""Weight of the newest batch in the seconds that an image takes."""


@dataclass
class Waiting(Generic[Given, Said]):
    given: Given
    since: float
    future: "asyncio.Future[Said]"


class Batcher(Generic[Given, Said]):
    """Asks for all that waits, `lanes` batches at a time."""

    def __init__(
        self,
        ask: Ask[Said],
        *,
        batch: int,
        queue: int,
        deadline: float,
        lanes: int = 1,
        name: str = "networks",
        together: Callable[[Sequence[Given]], Any] = np.stack,
        seen: Callable[[int, float, float], None] = lambda images, waited, seconds: None,
    ) -> None:
        """`seen` is told of each batch: images, the seconds that they waited on average, and those of `ask`."""
        self.ask, self.batch, self.limit, self.deadline = ask, batch, queue, deadline
        self.together, self.seen = together, seen
        self.queue: asyncio.Queue[Waiting[Given, Said]] = asyncio.Queue()
        self.threads = ThreadPoolExecutor(lanes, thread_name_prefix=name)
        self.lanes, self.tasks = lanes, []
        self.under_way, self.seconds = 0, 0.0

    def start(self) -> None:
        self.tasks = [asyncio.create_task(self.lane()) for _ in range(self.lanes)]

    async def stop(self) -> None:
        """End; nobody is to wait any more."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.threads.shutdown()

    @contextmanager
    def places(self, images: int) -> Iterator[None]:
        """Holds room for so many images, decoded or not. Raises RefusedError where there is none."""
        self.room(images)
        self.under_way += images
        try:
            yield
        finally:
            self.under_way -= images

    def room(self, images: int) -> None:
        """Raises RefusedError where there is none for so many images."""
        if self.under_way + images > self.limit:
            raise self.busy(f"{self.under_way} of {self.limit} places are taken, {images} more were asked for")

    def busy(self, why: str) -> RefusedError:
        left = math.ceil(self.seconds * self.under_way / self.lanes)
        return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"busy: {why}; try again later", retry_after=max(1, left))

    async def one(self, given: Given) -> Said:
        """What is said of an image with a place. Raises RefusedError where it waits too long."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(given, loop.time(), loop.create_future())
        self.queue.put_nowait(waiting)
        return await waiting.future

    async def lane(self) -> None:
        while True:
            gathered = [await self.queue.get()]
            while len(gathered) < self.batch and not self.queue.empty():
                gathered.append(self.queue.get_nowait())
            if fresh := self.fresh(gathered):
                await self.answer(fresh)

    def fresh(self, gathered: Sequence[Waiting[Given, Said]]) -> list[Waiting[Given, Said]]:
        """Those that somebody still waits for; who waited too long is told so."""
        least = asyncio.get_running_loop().time() - self.deadline
        for one in gathered:
            if one.since < least and not one.future.done():
                one.future.set_exception(self.busy(f"an image waited for more than {self.deadline:g} s"))
        return [one for one in gathered if not one.future.done()]

    async def answer(self, batch: Sequence[Waiting[Given, Said]]) -> None:
        loop, start = asyncio.get_running_loop(), time.perf_counter()
        waited = loop.time() - sum(one.since for one in batch) / len(batch)
        said = await loop.run_in_executor(self.threads, self.each, [one.given for one in batch])
        seconds = time.perf_counter() - start
        self.seconds += SMOOTHING * (seconds / len(batch) - self.seconds)
        self.seen(len(batch), waited, seconds)
        for one, result in zip(batch, said, strict=True):
            if one.future.done():
                continue
            if isinstance(result, Exception):
                one.future.set_exception(result)
            else:
                one.future.set_result(result)

    def each(self, images: Sequence[Given]) -> Sequence[Said | Exception]:
        """What is said of each; where a batch fails its images go alone, so that one spoils no other."""
        try:
            return self.ask(self.together(images))
        except Exception as error:
            if len(images) == 1:
                return [error]
            return [said for image in images for said in self.each([image])]
