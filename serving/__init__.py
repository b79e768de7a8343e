"""What was trained, in use: `models/bundle`, copied anywhere, answers for new images as `evaluate` judged it.

    from serving import Bundle
    answer = Bundle.load("models/bundle").predict(["a.png", "b.jpg"])
    print(answer.labels, answer.probabilities)

Needs numpy, Pillow and onnxruntime, and pyarrow for tables; no framework that trained anything.
"""

from serving.bundle import Answer, Bundle

__all__ = ["Answer", "Bundle"]
