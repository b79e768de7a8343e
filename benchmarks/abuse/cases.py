"""Requests that no honest client sends."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, PngImagePlugin

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
INFER = "/v2/models/foldstack/infer"
Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    name: str
    request: bytes
    """All bytes of the connection."""
    harmless: bool = False
    """It may be answered: what was changed may still be an image."""
    closed: bool = False
    """The connection may be closed without an answer, since this is no HTTP."""


def http(method: str, path: str, body: bytes = b"", kind: str = "", **headers: str) -> bytes:
    given = {"host": "localhost", "connection": "close", "content-length": str(len(body)), "content-type": kind}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def form(file: bytes, name: str = "image", path: str = "/predict", filename: str = "a.png", more: str = "") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n\r\n'.encode()
    return http("POST", path, head + file + b"\r\n--b--\r\n", f"multipart/form-data; boundary=b{more}")


def of_json(content: object, path: str = "/predict", **headers: str) -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return http("POST", path, body, "application/json", **headers)


def infer(rest: bytes = b"", **changes: object) -> bytes:
    tensor = {"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [0] * 3072} | changes
    head = json.dumps({"inputs": [tensor]}).encode()
    return http("POST", INFER, head + rest, "application/json", inference_header_content_length=str(len(head)))


def image(form: str, rng: Rng, size: int = 40) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(file, form)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """Grey, of one bit; `pixels` packed, whatever its header says."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def cut(rng: Rng) -> Case:
    kind = FORMATS[rng.integers(len(FORMATS))]
    whole = image(kind, rng)
    return Case(f"a cut {kind}", form(whole[: rng.integers(len(whole))]), harmless=True)


def changed(rng: Rng) -> Case:
    kind = FORMATS[rng.integers(len(FORMATS))]
    content = bytearray(image(kind, rng))
    for place in rng.integers(0, min(len(content), 10 ** rng.integers(1, 5)), rng.integers(1, 20)):
        content[place] = rng.integers(256)
    return Case(f"a changed {kind}", form(bytes(content)), harmless=True)


def noise(rng: Rng) -> Case:
    starts = (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"%PDF-1.7",
    )
    return Case("noise", form(starts[rng.integers(len(starts))] + rng.bytes(int(rng.integers(3000)))), harmless=True)


def wrong_form(rng: Rng) -> Case:
    name = str(rng.choice(["image", "images", "", "x" * 5000, "\u20ac", "../..", "a\0b"]))
    path = str(rng.choice(["/predict", "/predict/batch"]))
    charset = str(rng.choice(["", "undefined", "idna", "utf-7", "unicode_escape", "hex", "x" * 300, "utf-16"]))
    filename = str(rng.choice(["a.png", "../../etc/passwd", "\\ud800", "+2AA-", "a" * 9000, ""]))
    whole = form(b"no image", name, path, filename, more=f"; charset={charset}" if charset else "")
    end = rng.integers(1, len(whole)) if rng.random() < 0.3 else len(whole)
    body = whole.partition(b"\r\n\r\n")[2][:end]
    kind = whole.split(b"content-type: ")[1].split(b"\r\n")[0].decode("latin-1")
    return Case("a wrong form", http("POST", path, body, kind), harmless=path.endswith("batch"))


def wrong_json(rng: Rng) -> Case:
    bodies = (
        b"", b"{", b"[]", b"null", b"NaN", b'{"image": 3}', b'{"image": null}', b'{"image": "\\ud800"}', b"\xff\xfe",
        b'{"image": "%%%"}', b'{"image": "' + b"A" * 9999 + b'"}', b'{"image": ""}', b"[" * 100_000, b'{"a":' * 50_000,
        b'{"image": "data:image/png;base64,"}', b'{"image": ' + b"9" * 10_000 + b"}", b'{"image": {"image": []}}',
    )  # fmt: skip
    body = bodies[rng.integers(len(bodies))]
    return Case("wrong JSON", of_json(body, str(rng.choice(["/predict", INFER]))))


def wrong_tensor(rng: Rng) -> Case:
    n = int(rng.choice([0, -1, 1, 64, 65, 2**31, 10**30]))
    nested: object = 1
    for _ in range(rng.integers(1, 150)):
        nested = [nested]
    values = [[], [256], [-1], [1.5] * 3072, ["a"], [[1], [1, 2]], [10**400], [None], nested, "text"]
    lists: list[Callable[[], bytes]] = [
        lambda: infer(shape=[n, 32, 32, 3], data=[0] * 3071),
        lambda: infer(shape=[1] * int(rng.integers(0, 200)) + [2]),
        lambda: infer(data=values[rng.integers(len(values))]),
        lambda: infer(datatype=str(rng.choice(["FP32", "", "uint8", "BYTES"]))),
        lambda: infer(name=str(rng.choice(["", "files", "x" * 9999]))),
        lambda: infer(rng.bytes(int(rng.integers(4000))), data=None, parameters={"binary_data_size": n}),
        lambda: infer(b"\xff" * int(rng.integers(50)), name="files", datatype="BYTES", shape=[1], data=None,
                      parameters={"binary_data_size": int(rng.integers(50))}),
        lambda: infer(name="files", datatype="BYTES", shape=[2], data=["", base64.b64encode(rng.bytes(9)).decode()]),
    ]  # fmt: skip
    return Case("a wrong tensor", lists[rng.integers(len(lists))]())


def wrong_header(rng: Rng) -> Case:
    length = str(rng.choice(["-1", "1e3", "99", "0" * 5000, "9" * 5000, "²", "+5", " "]))
    tensor = http("POST", INFER, b"{}", "application/json", inference_header_content_length=length)
    coded = http("POST", "/predict", b"x", "application/json", content_encoding=str(rng.choice(["gzip", "br", "\xff"])))
    kind = http(
        "POST", "/predict", b"x", str(rng.choice(["", "text/plain", "multipart/form-data", "\xff;;=", "a" * 9999]))
    )
    return Case("a wrong header", (tensor, coded, kind)[rng.integers(3)])


def wrong_path(rng: Rng) -> Case:
    method = str(rng.choice(["GET", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "HEAD"]))
    path = str(rng.choice(["/predict", "/../../etc/passwd", "/%00", "/%ff", "/v2/models/x/infer", "/" + "a" * 9000]))
    return Case("a wrong path or method", http(method, path), closed=method == "CONNECT")


FAMILIES = (cut, changed, noise, wrong_form, wrong_json, wrong_tensor, wrong_header, wrong_path)


def some(n: int, seed: int) -> Iterator[Case]:
    """So many small ones."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        yield FAMILIES[number % len(FAMILIES)](rng)


def large() -> Iterator[Case]:
    """Those that want to cost much, and connections that are no HTTP."""
    zeros, mebibyte = zlib.compress(bytes(100_000_000 // 8 + 10_000)), 1 << 20
    bomb, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_text("a", "a" * (200 << 20), zip=True)
    Image.new("RGB", (32, 32)).save(bomb, "PNG", pnginfo=texts)
    frames = io.BytesIO()
    pictures = [Image.new("L", (8, 8), number % 256) for number in range(3000)]
    pictures[0].save(frames, "GIF", save_all=True, append_images=pictures[1:])
    yield Case("a header of 100 megapixels", form(png(10_000, 10_000)))
    yield Case("a header of 10^19 pixels", form(png(2**31 - 1, 2**31 - 1)))
    yield Case("a PNG of 100 megapixels, one colour", form(png(10_000, 10_000, zeros)))
    yield Case("a PNG of 39 megapixels, one colour", form(png(6_200, 6_200, zeros)), harmless=True)
    yield Case("200 MB of text in a PNG", form(bomb.getvalue()), harmless=True)
    yield Case("a GIF of 3,000 frames", form(frames.getvalue()), harmless=True)
    yield Case("50 MB, announced", form(bytes(50_000_000)))
    chunks = b"".join([b"%x\r\n" % mebibyte, bytes(mebibyte), b"\r\n"]) * 48
    yield Case(
        "50 MB in chunks", http("POST", "/predict", b"", "a/b", transfer_encoding="chunked", content_length="") + chunks
    )
    yield Case(
        "chunks that lie", http("POST", "/predict", transfer_encoding="chunked", content_length="") + b"zz\r\n\r\n"
    )
    yield Case("a length of 5,000 zeros", http("POST", "/predict", content_length="0" * 5000))
    yield Case("1,000 files", many_files(1000))
    yield Case("a header of 1 MB", b"GET /model HTTP/1.1\r\nhost: a\r\nx: " + b"a" * mebibyte, closed=True)
    yield Case("20,000 headers", b"GET / HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 20_000, closed=True)
    yield Case("headers that never end", b"POST /predict HTTP/1.1\r\nhost: a\r\n", closed=True)
    yield Case("a body that never ends", http("POST", "/predict", b"x", content_length="1000"))
    yield Case("no HTTP", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500), closed=True)
    yield Case(
        "garbage after a request", http("GET", "/nothing", connection="keep-alive") + b"\0\xff" * 999, closed=True
    )
    yield Case("10,000 requests at once", http("GET", "/nothing", connection="keep-alive") * 10_000, closed=True)


def many_files(n: int) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx\r\n'
    return http("POST", "/predict/batch", part * n + b"--b--\r\n", "multipart/form-data; boundary=b")
