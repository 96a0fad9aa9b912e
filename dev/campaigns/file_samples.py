"""Whole data files of every form that is read, small, to be damaged."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
from collections.abc import Mapping
from typing import Any

import pyarrow
from pyarrow import parquet

_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
_CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Bonn", "days": [1, 2.5, None]}}}
_CHAT = [{"role": "user", "content": "Grüß dich"}, {"role": "assistant", "content": "Guten Tag, 世界"}]
ROWS: list[dict[str, Any]] = [
    {"instruction": "Say it", "input": "now", "output": "it 🙂", "history": [["a", "b"]], "system": "s"},
    {"messages": _CHAT, "tools": [_TOOL]},
    {"messages": [_CHAT[0], {"role": "assistant", "content": None, "tool_calls": [_CALL]}, _CHAT[1]], "system": "s"},
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}], "tools": "[]"},
    {"prompt": "p", "chosen": "c", "rejected": "r", "margin": 1.5},
    {"prompt": "p", "completion": "c", "label": True},
    {"input": "i", "output": [{"score": 1, "text": "a"}, {"score": -2e3, "text": "b"}]},
    {"images": ["a.png"], "text": "a picture"},
    {"text": "Some plain text.\nOn two lines."},
    {"value": 1.5},
]
_INSTRUCTIONS = [{"instruction": f"Say {n}", "input": "", "output": f"{n} it is, " * 5} for n in range(40)]


def samples() -> Mapping[str, list[bytes]]:
    """Return the contents of some files by suffix."""
    lines = ["\n".join(json.dumps(row, ensure_ascii=False) for row in [kind] * 3).encode() for kind in ROWS]
    lists = [json.dumps([row] * 3, indent=1).encode() for row in ROWS]
    enveloped = [json.dumps({"type": "text_only", "instances": [{"text": "a"}] * 3}).encode()]
    plain = {
        ".jsonl": lines,
        ".json": [*lists, *enveloped],
        ".csv": [_table(","), _table(",").replace(b"\n", b"\r\n")],
        ".tsv": [_table("\t")],
        ".txt": ["One.\nTwo.\n\nThree: 世界.\n".encode() * 5],
    }
    packed = {
        ".jsonl.gz": [gzip.compress(content) for content in lines],
        ".json.bz2": [bz2.compress(content) for content in lists],
        ".csv.xz": [lzma.compress(content) for content in plain[".csv"]],
    }
    return {**plain, **packed, ".parquet": _parquet_files(), ".arrow": _arrow_files()}


def _table(delimiter: str) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["instruction", "input", "output"])
    writer.writerows([f'say "{n}"', "", f"it,\n{n}"] for n in range(10))
    return stream.getvalue().encode()


def _tables() -> list[pyarrow.Table]:
    nested = [{"messages": _CHAT, "source": "web", "meta": {"n": n, "tags": ["a"] * n}} for n in range(40)]
    strange = pyarrow.table(
        {
            "text": pyarrow.array([f"text {n}" for n in range(40)], pyarrow.large_string()),
            "when": pyarrow.array([datetime.datetime(2020, 1, 1, n % 24) for n in range(40)]),
            "day": pyarrow.array([datetime.date(2020, 1, 1 + n % 28) for n in range(40)]),
            "price": pyarrow.array([decimal.Decimal(n) / 4 for n in range(40)], pyarrow.decimal128(9, 2)),
            "kind": pyarrow.array(["a", "b"] * 20).dictionary_encode(),
            "flag": pyarrow.array([True, None] * 20),
            "raw": pyarrow.array([b"\xff\x00"] * 40),
            "pair": pyarrow.array([[1.0, 2.0]] * 40, pyarrow.list_(pyarrow.float32(), 2)),
            "map": pyarrow.array([[("k", n)] for n in range(40)], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            "nothing": pyarrow.nulls(40),
        }
    )
    return [pyarrow.Table.from_pylist(_INSTRUCTIONS), pyarrow.Table.from_pylist(nested), strange]


def _parquet_files() -> list[bytes]:
    ways: list[dict[str, Any]] = [
        {"compression": "snappy"},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"compression": "none", "use_dictionary": False},
        {"compression": "gzip", "row_group_size": 7, "data_page_size": 64},
        {"compression": "lz4", "use_dictionary": False, "column_encoding": "PLAIN"},
    ]
    files = []
    for table in _tables():
        for way in ways:
            sink = io.BytesIO()
            parquet.write_table(table, sink, **way)
            files.append(sink.getvalue())
    sink = io.BytesIO()
    encodings = {"instruction": "DELTA_BYTE_ARRAY", "input": "DELTA_LENGTH_BYTE_ARRAY", "output": "DELTA_BYTE_ARRAY"}
    parquet.write_table(_tables()[0], sink, use_dictionary=False, column_encoding=encodings)
    return [*files, sink.getvalue()]


def _arrow_files() -> list[bytes]:
    views = pyarrow.table(
        {
            "text": pyarrow.array([f"a text that is long enough {n}" for n in range(40)], pyarrow.string_view()),
            "runs": pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([20, 40], pyarrow.int32()), ["a", "b"]),
        }
    )
    files = []
    for table in [*_tables(), views]:
        for opened in (pyarrow.ipc.new_file, pyarrow.ipc.new_stream):
            for compression in (None, "lz4", "zstd"):
                sink = io.BytesIO()
                with opened(sink, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression=compression)) as out:
                    out.write_table(table, max_chunksize=15)
                files.append(sink.getvalue())
    return files
