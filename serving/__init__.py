"""What was trained, in use: `models/bundle`, copied anywhere, answers for new images as `evaluate` judged it.

    from serving import Bundle
    answer = Bundle.load("models/bundle").predict(["a.png", "b.jpg"])
    print(answer.labels, answer.probabilities)

Needs numpy, Pillow and onnxruntime, and pyarrow for tables; no framework that trained anything.
"""

import os

# What comes from the package index tells Microsoft of every model that is loaded, unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from serving.bundle import Answer, Bundle

__all__ = ["Answer", "Bundle"]
