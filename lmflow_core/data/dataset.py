"""Data made ready for a model: encoded once, kept in the cache, and mapped from there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core import __version__
from lmflow_core.contracts.settings import DataSettings
from lmflow_core.contracts.template import Template
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import Located
from lmflow_core.data.preparation import Counts, Preparer
from lmflow_core.data.selection import first_examples, selected
from lmflow_core.data.sources import sources
from lmflow_core.data.store import EncodedRows, RowWriter, read_meta
from lmflow_core.files.cache import cache_root, made_aside, one_at_a_time
from lmflow_core.models.opening import OpenModel
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.templates.choosing import choose_template_for

_ROWS, _HELD_OUT = "rows", "held_out"
EVERY_KIND = ("text", "prompted", "conversation")


@dataclass(frozen=True)
class Dataset:
    """Encoded rows, those held out of them, and what became of the rows. ``key`` names all that they follow from."""

    rows: EncodedRows
    held_out: EncodedRows | None
    counts: Counts
    template_name: str | None
    template: Template | None
    key: str
    from_cache: bool


class DatasetMaker:
    """Makes data ready for one model."""

    def __init__(
        self,
        data: DataSettings,
        opened: OpenModel,
        catalogue: Catalogue,
        *,
        seed: int = 0,
        accepted: tuple[str, ...] = EVERY_KIND,
        purpose: str = "train",
        whole: bool = False,
    ) -> None:
        """Choose the template; nothing is encoded yet.

        ``purpose`` is what the rows are for, in messages; with ``whole`` they may be longer than the model's context.

        Raises:
            LmflowError: the data cannot be read, or the template cannot be chosen.
        """
        self._data, self._catalogue = data, catalogue
        self._seed, self._accepted, self._purpose = seed, accepted, purpose
        self._tokenizer = opened.model.tokenizer
        self._limit = data.max_length or (None if whole else opened.model.context_length)
        self.template_name, self.template = choose_template_for(
            first_examples(data, catalogue), data.template, opened, catalogue
        )

    def make(self) -> Dataset:
        """Return the encoded rows, from the cache when nothing that changes a label has changed.

        Raises:
            LmflowError: a row cannot be used, or none is left; or the cache cannot be written.
        """
        key = self.key()
        if not self._data.cache:
            return self._made_for_once(key)
        folder = cache_root() / "data" / key
        with one_at_a_time(folder):
            if (found := self._read(folder, key, from_cache=True)) is not None:
                return found
            shutil.rmtree(folder, ignore_errors=True)
            with made_aside(folder) as aside:
                self._write(aside)
        found = self._read(folder, key, from_cache=False)
        assert found is not None, folder
        return found

    def _made_for_once(self, key: str) -> Dataset:
        """Return the rows from files that vanish at once: they live as long as they are mapped."""
        with tempfile.TemporaryDirectory(prefix="lmflow-") as folder:
            self._write(Path(folder))
            found = self._read(Path(folder), key, from_cache=False)
        assert found is not None
        return found

    def key(self) -> str:
        """Return a digest of everything that changes an id, a label or the choice of rows."""
        data = self._data
        facts: dict[str, Any] = {
            "version": __version__,
            "readers": self._catalogue.plugins.digest(),
            "sources": [[s.fingerprint() for s in sources([path], self._catalogue)] for path in data.dataset],
            "format": data.dataset_format,
            "tokenizer": self._tokenizer.fingerprint,
            "template": self.template.fingerprint if self.template else None,
            "train_on": data.train_on,
            "max_length": self._limit,
            "length_policy": data.length_policy,
            "max_train_samples": data.max_train_samples,
            "weights": data.dataset_weights,
            "eval_share": data.eval_share,
            "seed": self._seed if data.eval_share or data.dataset_weights else None,
            "accepted": self._accepted,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _write(self, folder: Path) -> None:
        self._write_rows(folder / _ROWS, self._selected(held_out=False), self._purpose)
        if self._data.eval_share:
            self._write_rows(folder / _HELD_OUT, self._selected(held_out=True), "measure")

    def _selected(self, *, held_out: bool) -> Iterable[Located]:
        return selected(self._data, self._catalogue, self._seed, self._accepted, held_out=held_out)

    def _write_rows(self, folder: Path, examples: Iterable[Located], purpose: str) -> None:
        folder.mkdir()
        encoder = Encoder(self._tokenizer, self.template, self._data.train_on)
        preparer = Preparer(encoder, self._limit, self._data.length_policy, purpose)
        writer = RowWriter(folder)
        preparer.prepare_into(writer, console.progress(examples, f"Preparing data to {purpose} on"))
        writer.close(dataclasses.asdict(preparer.counts))

    def _read(self, folder: Path, key: str, *, from_cache: bool) -> Dataset | None:
        rows = EncodedRows.mapped(folder / _ROWS)
        held_out = EncodedRows.mapped(folder / _HELD_OUT) if self._data.eval_share else None
        meta = read_meta(folder / _ROWS)
        if rows is None or meta is None or (self._data.eval_share and held_out is None):
            return None
        counts = Counts(**meta["facts"])
        return Dataset(rows, held_out, counts, self.template_name, self.template, key, from_cache)
