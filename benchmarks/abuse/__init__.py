"""The HTTP server under abuse: thousands of bad requests, and what they cost those who ask for something.

    python -m benchmarks.abuse models/bundle --schemathesis VENV/bin/schemathesis     # pip install schemathesis
    python -m benchmarks.abuse models/bundle --requests 100                           # to try it out

A server is warmed by 500 requests that it answers. Then come bad ones, made from a seed: files that are cut, changed
or lie about their size, forms, JSON and tensors that are none, bodies that are too large, headers that never end; and
what schemathesis makes of the OpenAPI document. Each is to be refused with a 4xx, or with 503 and Retry-After, or to
have its connection closed where it is no HTTP; a file that is changed may still be an image. A normal client is timed
alone and beside 50 connections that send a byte a second. Afterwards the server's memory is compared with that before.
"""
