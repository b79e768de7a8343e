"""From bytes to answers: decoding in threads, the networks in batches, what both took."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http import HTTPStatus

import numpy as np

from serving.bundle import MANIFEST, Bundle, sha256
from serving.pictures import UnreadableError, opened
from serving.server.batching import Batcher
from serving.server.measures import Measures
from serving.server.refusals import RefusedError
from serving.server.settings import Settings

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is decoded, told by content: what browsers and cameras make. Every further decoder is one more to attack."""


@dataclass(frozen=True)
class Said:
    """What a bundle says of one image."""

    probabilities: np.ndarray
    """float64 [k]."""
    set: np.ndarray
    """bool [k]: the conformal set."""
    votes: Mapping[str, np.ndarray]
    """Of each backbone alone, float64 [k]."""

    def ranked(self) -> np.ndarray:
        """Classes, the likeliest first, int64 [k]."""
        return np.argsort(-self.probabilities, kind="stable")


class Service:
    """A bundle that answers many at once."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle, self.settings, self.measures = bundle, settings, Measures()
        self.wanted = replace(bundle.wanted, formats=FORMATS)
        self.wanted = replace(self.wanted, max_megapixels=min(self.wanted.max_megapixels, settings.megapixels))
        self.version = f"{(bundle.manifest['commit'] or 'unknown')[:12]}-{sha256(bundle.folder / MANIFEST)[:8]}"
        cores = len(os.sched_getaffinity(0))
        self.decoders = ThreadPoolExecutor(cores, thread_name_prefix="decoding")
        self.batcher: Batcher[Said] = Batcher(
            self.ask,
            batch=settings.batch,
            queue=settings.queue,
            deadline=settings.deadline,
            lanes=max(1, cores // settings.threads) if settings.threads else 1,
            seen=self.measures.batch,
        )
        self.measures.waiting.set_function(lambda: self.batcher.under_way)
        self.ready = False

    def ask(self, images: np.ndarray) -> Sequence[Said]:
        answer = self.bundle.predict(images)
        return [
            Said(p, answer.sets[row], {name: each[row] for name, each in answer.votes.items()})
            for row, p in enumerate(answer.probabilities)
        ]

    async def start(self) -> None:
        """Load the networks and answer once, which is when they take their memory."""
        self.batcher.start()
        size = self.wanted.size
        await self.batcher.one(np.zeros((size, size, 3), np.uint8))
        self.ready = True

    async def stop(self) -> None:
        self.ready = False
        await self.batcher.stop()
        self.decoders.shutdown()

    async def classify(self, content: bytes) -> Said:
        """What is said of an image file. Raises RefusedError for what is none, and where too many wait."""
        self.batcher.room(1)
        return await self.batcher.one(await self.decoded(content))

    async def classify_each(self, contents: Sequence[bytes]) -> list[Said | RefusedError]:
        """The same of each of several, where one that is no image spoils no other."""
        self.batcher.room(len(contents))
        found = await asyncio.gather(*map(self.classify, contents), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, RefusedError):
                raise one
        return found  # type: ignore[return-value]

    async def decoded(self, content: bytes) -> np.ndarray:
        loop, start = asyncio.get_running_loop(), time.perf_counter()
        try:
            return await loop.run_in_executor(self.decoders, opened, content, self.wanted)
        except UnreadableError as error:
            what = ", ".join(FORMATS)
            message = (
                f"the image cannot be read: {error}; expected {what}, at most {self.wanted.max_megapixels} megapixels"
            )
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message) from None
        finally:
            self.measures.decoding.observe(time.perf_counter() - start)

    async def classify_all(self, contents: Sequence[bytes]) -> list[Said]:
        """The same where one that is no image refuses all."""
        found = await self.classify_each(contents)
        for one in found:
            if isinstance(one, RefusedError):
                raise one
        return [one for one in found if isinstance(one, Said)]

    async def classify_pixels(self, images: np.ndarray) -> list[Said]:
        """What is said of decoded images, uint8 [n, size, size, 3]."""
        self.batcher.room(len(images))
        return await asyncio.gather(*map(self.batcher.one, images))
