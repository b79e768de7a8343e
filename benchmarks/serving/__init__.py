"""The HTTP server under load: beside itself one image at a time, and beside LitServe with the same networks.

    python -m benchmarks.serving models/bundle --litserve VENV/bin/python   # with python-multipart, onnxruntime, pillow
    python -m benchmarks.serving models/bundle --clients 4 --requests 100 --rounds 1 --seconds 2       # to try it out

Sides in turn, each a server process on this machine, warmed and then asked by --clients that upload test images as PNG,
each its next when the last was answered. LitServe decodes, asks and answers by the same code, `serving.bundle`, with
batches as large as here. After that, requests arrive at --times the rate that was measured, for --seconds, whatever
becomes of those before: only answers and 503 with Retry-After are allowed, and the slowest twentieth of the answers may
take twice as long as without load and the server's deadline. Clients are another process on the same cores.
"""
