"""Files with given rows, in the forms that a suffix names for everybody."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def _write_lines(rows: Rows, file: Path) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_parquet(rows: Rows, file: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)


def _write_arrow(rows: Rows, file: Path) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(list(rows))
    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)


WRITERS: dict[str, Callable[[Rows, Path], None]] = {
    ".arrow": _write_arrow,
    ".ndjson": _write_lines,
    ".parquet": _write_parquet,
}
