"""From bytes to answers: decoding in threads, the networks in batches, what both took."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

import numpy as np

from serving.bundle import MANIFEST, Bundle, sha256
from serving.networks import cores
from serving.pictures import UnreadableError, opened
from serving.server.batching import Batcher
from serving.server.measures import Measures
from serving.server.refusals import RefusedError
from serving.server.settings import Settings

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What is decoded, told by content: what browsers and cameras make. Every further decoder is one more to attack."""
DECODED = 8
"""Files that a thread decodes in one go, at most: the way there and back costs as much as a small file."""


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
        megapixels = min(bundle.wanted.max_megapixels, settings.megapixels)
        self.wanted = replace(bundle.wanted, formats=FORMATS, max_megapixels=megapixels)
        self.version = f"{(bundle.manifest['commit'] or 'unknown')[:12]}-{sha256(bundle.folder / MANIFEST)[:8]}"
        parallel = cores()
        bounds = {"queue": settings.queue, "deadline": settings.deadline}
        self.decoders: Batcher[bytes, np.ndarray] = Batcher(
            self.decode, batch=min(DECODED, settings.batch), lanes=parallel, name="decoding", together=list, **bounds
        )
        self.batcher: Batcher[np.ndarray, Said] = Batcher(
            self.ask,
            **bounds,
            batch=settings.batch,
            lanes=max(1, parallel // settings.threads) if settings.threads else 1,
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
        self.decoders.start()
        self.batcher.start()
        size = self.wanted.size
        await self.batcher.one(np.zeros((size, size, 3), np.uint8))
        self.ready = True

    async def stop(self) -> None:
        self.ready = False
        await self.decoders.stop()
        await self.batcher.stop()

    async def classify(self, content: bytes) -> Said:
        """What is said of an image file. Raises RefusedError for what is none, and where too many wait."""
        (found,) = await self.classify_all([content])
        return found

    async def classify_all(self, contents: Sequence[bytes]) -> list[Said]:
        """The same of several, where one that is no image refuses all."""
        found = await self.classify_each(contents)
        for one in found:
            if isinstance(one, RefusedError):
                raise one
        return [one for one in found if isinstance(one, Said)]

    async def classify_each(self, contents: Sequence[bytes]) -> list[Said | RefusedError]:
        """The same of each of several, where one that is no image spoils no other."""

        async def each(content: bytes) -> Said | RefusedError:
            try:
                return await self.batcher.one(await self.decoded(content))
            except RefusedError as refused:
                return refused

        with self.batcher.places(len(contents)):
            return await asyncio.gather(*map(each, contents))

    async def classify_pixels(self, images: np.ndarray) -> list[Said]:
        """What is said of decoded images, uint8 [n, size, size, 3]."""
        with self.batcher.places(len(images)):
            return await asyncio.gather(*map(self.batcher.one, images))

    async def decoded(self, content: bytes) -> np.ndarray:
        start = time.perf_counter()
        try:
            return await self.decoders.one(content)
        finally:
            self.measures.decoding.observe(time.perf_counter() - start)

    def decode(self, contents: Sequence[bytes]) -> Sequence[np.ndarray | RefusedError]:
        return [self.pixels(content) for content in contents]

    def pixels(self, content: bytes) -> np.ndarray | RefusedError:
        try:
            return opened(content, self.wanted)
        except UnreadableError as error:
            what = f"{', '.join(FORMATS)}, at most {self.wanted.max_megapixels} megapixels"
            message = f"the image cannot be read: {error}; expected {what}"
            return RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, message)
