"""The same bundle behind LitServe: `python -m benchmarks.serving.peer BUNDLE --port 8001`, in an environment with it.

Images are decoded in its worker, whose batches are as large as those of `serving.server` by default.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import litserve  # pyright: ignore[reportMissingImports]
import numpy as np
from fastapi import UploadFile

from serving.bundle import Answer, Bundle
from serving.pictures import opened

TOP = 3


class Api(litserve.LitAPI):  # pyright: ignore[reportUntypedBaseClass]
    """What its documentation shows for images: a form's file in, a dictionary out."""

    def __init__(self, folder: Path, threads: int, **options: Any) -> None:
        super().__init__(**options)
        self.folder, self.threads = folder, threads

    def setup(self, device: str) -> None:
        self.bundle = Bundle.load(self.folder, self.threads)
        size = self.bundle.wanted.size
        self.bundle.predict(np.zeros((1, size, size, 3), np.uint8))

    def decode_request(self, request: UploadFile) -> np.ndarray:
        return opened(request.file.read(), self.bundle.wanted)

    def batch(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> Answer:
        return self.bundle.predict(x if x.ndim == 4 else x[None])

    def unbatch(self, output: Answer) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(zip(output.probabilities, output.sets, strict=True))

    def encode_response(self, output: Any) -> dict[str, Any]:
        (p, chosen), classes = output, self.bundle.classes
        ranked = np.argsort(-p, kind="stable")
        return {
            "label": classes[ranked[0]],
            "top": [{"label": classes[number], "probability": float(p[number])} for number in ranked[:TOP]],
            "probabilities": dict(zip(classes, p.tolist(), strict=True)),
            "set": [classes[number] for number in np.flatnonzero(chosen)],
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.peer", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--threads", type=int, default=0, help="of each network; 0: all cores")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--wait", type=float, default=0.002, help="seconds in which a batch gathers; 0 spins")
    parser.add_argument("--workers", type=int, default=1, help="processes with the networks")
    parser.add_argument("--servers", type=int, default=1, help="processes that speak HTTP")
    given = parser.parse_args()
    api = Api(given.bundle, given.threads, max_batch_size=given.batch, batch_timeout=given.wait)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=given.workers, timeout=60, fast_queue=True)
    quiet = {"generate_client_file": False, "log_level": "warning", "access_log": False}
    server.run(host="127.0.0.1", port=given.port, num_api_servers=given.servers, **quiet)


if __name__ == "__main__":
    main()
