"""The program that reads Parquet and Arrow files in a process of its own, which is all that a damaged file may kill.

It runs with the standard library and pyarrow only. A line on stdin asks for a file: ``{"form", "path"}``. The answer on
stdout is frames, each a letter, a length of eight bytes and that many bytes: ``B`` a stream of Arrow with a few rows
that were checked, ``E`` what is wrong with the file, ``D`` that it was read to its end.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

_PART_BYTES = 1 << 22
_MOST_ROWS = 4096
_IDLE_SECONDS = 20.0
_LONGEST_REASON = 300


def main() -> None:
    """Answer requests until stdin ends, or none comes for a while."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        idle = threading.Timer(_IDLE_SECONDS, os._exit, [0])
        idle.daemon = True
        idle.start()
        line = sys.stdin.readline()
        idle.cancel()
        if not line:
            return
        _answer(json.loads(line), answers)


def _answer(request: dict[str, str], answers: Any) -> None:
    try:
        for batch in _checked(_BATCHES[request["form"]](request["path"])):
            _send(answers, b"B", _as_stream(batch))
        _send(answers, b"D", b"")
    except BrokenPipeError:  # nobody waits for the rest
        os._exit(0)
    except Exception as error:  # a damaged file makes pyarrow raise nearly anything
        _send(answers, b"E", _reason(error).encode("utf-8", errors="replace"))


def _send(answers: Any, kind: bytes, content: Any) -> None:
    answers.write(kind + len(content).to_bytes(8, "little"))
    answers.write(content)
    answers.flush()


def _checked(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield batches in parts of a few rows, after a look at every value: a later reader may trust them."""
    for batch in batches:
        _check_columns(batch.schema)
        batch.validate(full=True)
        rows = _rows_of_a_part(batch.nbytes, batch.num_rows)
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _rows_of_a_part(size: int, rows: int) -> int:
    """Return how many of some rows make a part, so that memory follows the size of a row and not their number."""
    return max(1, min(_MOST_ROWS, _PART_BYTES * rows // max(size, 1)))


def _check_columns(schema: Any) -> None:
    import pyarrow

    if len(set(schema.names)) < len(schema.names):
        raise ValueError("two columns have the same name")
    if all(pyarrow.types.is_null(field.type) for field in schema):
        raise ValueError("no column can hold a value")


def _as_stream(batch: Any) -> Any:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, batch.schema.remove_metadata()) as writer:
        writer.write_batch(batch.replace_schema_metadata(None))
    return sink.getvalue()


def _parquet(path: str) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        rows = [_rows_of_a_part(group.total_byte_size, group.num_rows) for group in groups]
        yield from file.iter_batches(min(rows, default=1))


def _arrow(path: str) -> Iterator[Any]:
    """Yield the record batches of a file that is in either of Arrow's two layouts."""
    import pyarrow

    with pyarrow.memory_map(path) as mapped:
        try:
            file = pyarrow.ipc.open_file(mapped)
        except pyarrow.ArrowInvalid:
            yield from pyarrow.ipc.open_stream(mapped)
            return
        for number in range(file.num_record_batches):
            yield file.get_batch(number)


_BATCHES = {"parquet": _parquet, "arrow": _arrow}


def _reason(error: Exception) -> str:
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    return (said or type(error).__name__)[:_LONGEST_REASON]


if __name__ == "__main__":
    main()
