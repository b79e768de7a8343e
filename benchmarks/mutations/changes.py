"""How bytes are changed, by a seeded generator."""

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)
HEADER = 64
"""Bytes in which lies matter most."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
WORDS = re.compile(rb"[-\w.]+")
TOKENS = (
    *(b"", b"-1", b"0", b"1e999", b"nan", b".inf", b"null", b"true", b"[]", b"{}", b"[[[", b"'", b'"', b"9" * 30),
    *(b"9" * 5000, b"\xff", b"\0", b"\\ud800", "\u2028".encode(), "\u0085".encode(), b"&a", b"*a", b"!!int x", b"<<: "),
    *(b"2001-99-99", b"../..", b"/", b"~", b": ", b"- ", b"#", b"\t", b"\r", b",", b"1_0", b"0x", b"1e-3", b"[" * 3000),
)
TEXT = (".yaml", ".json", ".jsonl", ".csv")


def mutated(content: bytes, suffix: str, rng: Rng) -> bytes:
    """The bytes with one to four changes, mostly one."""
    kinds = [*BINARY, *(WORDLY * 3 if suffix in TEXT else ())]
    right = suffix == ".png" and rng.random() < 0.5
    for _ in range(int(rng.choice([1, 1, 1, 1, 2, 4]))):
        content = kinds[rng.integers(len(kinds))](content, rng)
    return with_checksums(content) if right else content


def span(content: bytes, rng: Rng, most: int = 64) -> tuple[int, int]:
    start = int(rng.integers(len(content) + 1))
    return start, min(len(content), start + int(rng.integers(1, most)))


def flipped(content: bytes, rng: Rng) -> bytes:
    found = bytearray(content)
    for _ in range(rng.integers(1, 4) if content else 0):
        found[rng.integers(len(found))] ^= 1 << int(rng.integers(8))
    return bytes(found)


def cut(content: bytes, rng: Rng) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def removed(content: bytes, rng: Rng) -> bytes:
    start, end = span(content, rng)
    return content[:start] + content[end:]


def inserted(content: bytes, rng: Rng) -> bytes:
    start, end = span(content, rng)
    more = content[start:end] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 64)))
    at = int(rng.integers(len(content) + 1))
    return content[:at] + more * int(rng.choice([1, 1, 1, 200])) + content[at:]


def swapped(content: bytes, rng: Rng) -> bytes:
    first, second, third, fourth = sorted((*span(content, rng), *span(content, rng)))
    return content[:first] + content[third:fourth] + content[second:third] + content[first:second] + content[fourth:]


def lied(content: bytes, rng: Rng) -> bytes:
    """A length, a size or an offset of the extreme kind."""
    size = int(rng.choice([1, 2, 4, 8]))
    value = EXTREMES[rng.integers(len(EXTREMES))] % (1 << 8 * size)
    at = int(rng.integers(1 + (min(HEADER, len(content)) if rng.random() < 0.5 else len(content))))
    told = value.to_bytes(size, "little") if rng.random() < 0.5 else value.to_bytes(size, "big")
    return content[:at] + told + content[at + size :]


def renamed(content: bytes, rng: Rng) -> bytes:
    """A word or a number made another, of those that are there or of TOKENS."""
    found = list(WORDS.finditer(content))
    if not found:
        return content
    place, other = found[rng.integers(len(found))], found[rng.integers(len(found))]
    token = other[0] if rng.random() < 0.3 else TOKENS[rng.integers(len(TOKENS))]
    return content[: place.start()] + token + content[place.end() :]


def relined(content: bytes, rng: Rng) -> bytes:
    """A line twice, gone or elsewhere."""
    lines = content.split(b"\n")
    line = lines.pop(rng.integers(len(lines)))
    for _ in range(rng.integers(3)):
        lines.insert(int(rng.integers(len(lines) + 1)), line)
    return b"\n".join(lines)


Change = Callable[[bytes, Rng], bytes]
BINARY: tuple[Change, ...] = (flipped, flipped, flipped, cut, removed, inserted, swapped, lied, lied)
WORDLY: tuple[Change, ...] = (renamed, renamed, relined)


def with_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have the right ones, so that a decoder looks into them."""
    found, at = content[: len(SIGNATURE)], len(SIGNATURE)
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(content):
            break
        found += content[at:end] + struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return found + content[at:]
