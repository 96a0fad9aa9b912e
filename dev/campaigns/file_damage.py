"""What may happen to a file: bytes that are lost, flipped, moved or lie, and values that nobody expects."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from file_samples import ROWS

_LIES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1)
_TEXT_BITS = (
    b"\x00",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\xed\xa0\x80",
    b"\xff\xfe",
    b"\r",
    b'"',
    b"{",
    b"]",
    b",",
    b"\x1b[31m",
    b"\xe2\x80\xae",
    b"NaN",
    b"-Infinity",
    b"1e999",
)
_DEEP = re.compile(r'"deep (\d+)"')
_ENCODINGS = ("utf-16", "utf-32", "latin-1", "utf-7", "shift-jis", "utf-8-sig", "utf-16-be")


def damaged(samples: Mapping[str, Sequence[bytes]], kind: str, generator: random.Random) -> bytes:
    """Return a damaged file of a kind."""
    textual = kind in (".json", ".jsonl")
    if textual and generator.random() < 0.4:
        return _strange(kind, generator)
    content = bytearray(generator.choice(samples[kind]))
    packed = "." in kind[1:] or kind in (".parquet", ".arrow")
    ways = [_cut, _flip, _flip, _overwrite, _delete, _repeat, _lie, _splice]
    ways += [] if packed else [_bit_of_text, _other_encoding, _deep, _long_number]
    for _ in range(generator.choice((1, 1, 1, 2, 3, 6))):
        content = generator.choice(ways)(content or bytearray(b"["), generator)
        if generator.random() < 0.1:
            content = _splice_other(content, bytearray(generator.choice(samples[kind])), generator)
    return bytes(content)


def _place(content: bytearray, generator: random.Random) -> int:
    """Return a place; heads and feet are where lengths stand."""
    size = len(content)
    area = generator.random()
    if area < 0.25:
        return generator.randrange(min(size, 64))
    if area < 0.6:
        return generator.randrange(max(0, size - 700), size)
    return generator.randrange(size)


def _cut(content: bytearray, generator: random.Random) -> bytearray:
    return content[: _place(content, generator)]


def _flip(content: bytearray, generator: random.Random) -> bytearray:
    content[_place(content, generator)] ^= 1 << generator.randrange(8)
    return content


def _overwrite(content: bytearray, generator: random.Random) -> bytearray:
    at = _place(content, generator)
    content[at : at + generator.randint(1, 8)] = generator.randbytes(generator.randint(1, 8))
    return content


def _delete(content: bytearray, generator: random.Random) -> bytearray:
    at = _place(content, generator)
    del content[at : at + generator.randint(1, 40)]
    return content


def _repeat(content: bytearray, generator: random.Random) -> bytearray:
    start, at = _place(content, generator), _place(content, generator)
    content[at:at] = content[start : start + generator.randint(1, 200)]
    return content


def _lie(content: bytearray, generator: random.Random) -> bytearray:
    at = _place(content, generator)
    form = generator.choice(("<B", "<H", "<I", "<Q", ">I"))
    lie = struct.pack(form, generator.choice(_LIES) & ((1 << 8 * struct.calcsize(form)) - 1))
    content[at : at + len(lie)] = lie
    return content


def _splice(content: bytearray, generator: random.Random) -> bytearray:
    first, second = sorted((_place(content, generator), _place(content, generator)))
    return content[second:] + content[:first]


def _splice_other(content: bytearray, other: bytearray, generator: random.Random) -> bytearray:
    return content[: generator.randrange(len(content) + 1)] + other[generator.randrange(len(other)) :]


def _bit_of_text(content: bytearray, generator: random.Random) -> bytearray:
    at = _place(content, generator)
    content[at:at] = generator.choice(_TEXT_BITS)
    return content


def _other_encoding(content: bytearray, generator: random.Random) -> bytearray:
    text = content.decode("utf-8", errors="replace")
    return bytearray(text.encode(generator.choice(_ENCODINGS), errors="replace"))


def _deep(content: bytearray, generator: random.Random) -> bytearray:
    at = _place(content, generator)
    content[at:at] = generator.choice((b"[", b'{"a":')) * generator.choice((10, 900, 100_000))
    return content


def _long_number(content: bytearray, generator: random.Random) -> bytearray:
    digits = [found.start() for found in re.finditer(rb"\d", bytes(content))] or [0]
    at = generator.choice(digits)
    content[at:at] = b"9" * generator.choice((20, 400, 5000))
    return content


def _strange(kind: str, generator: random.Random) -> bytes:
    """Return rows that are JSON, with values of the wrong type somewhere, and keys that stand twice."""
    rows = [_with_strange(row, generator) for row in generator.choices(ROWS, k=generator.randint(1, 4))]
    texts = [_DEEP.sub(_nested, json.dumps(row)) for row in rows]
    if generator.random() < 0.2:
        texts = [text.replace("{", '{"output": "again", "output": 1, ', 1) for text in texts]
    whole = "\n".join(texts) if kind == ".jsonl" else f"[{','.join(texts)}]"
    return whole.encode()


def _nested(found: re.Match[str]) -> str:
    """Return so many objects in each other, which the encoder of JSON could not write."""
    depth = int(found[1])
    return '{"a":' * depth + "1" + "}" * depth


def _with_strange(value: Any, generator: random.Random, chance: float = 0.08) -> Any:
    if generator.random() < chance:
        return _any_value(generator)
    if isinstance(value, dict):
        found = {key: _with_strange(inner, generator) for key, inner in value.items() if generator.random() > 0.03}
        return {_any_key(generator): 1, **found} if generator.random() < 0.03 else found
    if isinstance(value, list):
        return [_with_strange(inner, generator) for inner in value if generator.random() > 0.03]
    return value


def _any_key(generator: random.Random) -> str:
    return generator.choice(("", "text", "label", "\ud800", "\x1b[2J", "\n", "messages", "chosen", "x" * 3000))


def _any_value(generator: random.Random) -> Any:
    deep = f"deep {generator.choice((5, 300, 450, 480, 900, 930, 960, 975, 985))}"
    choices = (
        None,
        True,
        "",
        " ",
        "\ud800",
        "\x00",
        "\x1b[2J\n",
        "x" * 5000,
        0,
        -1,
        10**400,
        float("nan"),
        float("inf"),
        [],
        {},
        [None],
        [[]],
        {"": {}},
        deep,
        {"function": {"name": "f", "arguments": deep}},
        {"role": "user", "content": deep},
        [{"type": "text", "text": deep}],
        [{"type": "image_url", "image_url": {"url": generator.choice(("\x00", "a" * 9000, 5, None))}}],
    )
    return generator.choice(choices)
