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
from lmflow_core.data.counts import Counts
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import Located
from lmflow_core.data.images import WatchedImages
from lmflow_core.data.preparation import Preparer
from lmflow_core.data.row_files import RowWriter, read_meta
from lmflow_core.data.selection import first_examples, selected
from lmflow_core.data.sources import sources
from lmflow_core.data.store import EncodedRows
from lmflow_core.data.structures import structure_of
from lmflow_core.files.cache import atomic_cache_folder, cache_root, locked
from lmflow_core.models.opening import OpenModel
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.templates.choosing import choose_template_for

_ROWS, _VALIDATION, _IMAGES = "rows", "validation", "images.json"
SUPERVISED_KINDS = ("text", "prompted", "conversation", "image_text")


@dataclass(frozen=True)
class Dataset:
    """Encoded examples, those for validation, and what became of the rows; ``key`` names all that they follow from."""

    rows: EncodedRows
    validation: EncodedRows | None
    counts: Counts
    template_name: str | None
    template: Template | None
    key: str
    from_cache: bool


class DatasetMaker:
    """Makes data ready for one model.

    Attributes:
        template_name: of the template that was chosen; None where there is none.
        template: bound to the model's tokenizer, or None.
        encoder: encodes further examples as those of the data are.
    """

    def __init__(
        self,
        data: DataSettings,
        opened: OpenModel,
        catalogue: Catalogue,
        *,
        seed: int = 0,
        accepted: tuple[str, ...] = SUPERVISED_KINDS,
        purpose: str = "train",
        whole: bool = False,
    ) -> None:
        """Choose the template; nothing is encoded yet.

        Args:
            data: which data, and how rows become tokens.
            opened: the model; its weights are not needed.
            catalogue: the components there are.
            seed: of what is chosen at random.
            accepted: the kinds of example that can be used.
            purpose: what the examples are for, in messages.
            whole: they may be longer than the model's context.

        Raises:
            LmflowError: the data cannot be read, or the template cannot be chosen.
        """
        self._data, self._catalogue = data, catalogue
        self._seed, self._accepted, self._purpose = seed, accepted, purpose
        media = opened.model.media
        self._watched = None if media is None else WatchedImages(media)
        self._context = None if whole else opened.model.context_length
        self._limit = data.max_length or self._context
        self.template_name, self.template = choose_template_for(
            first_examples(data, catalogue), data.template, opened, catalogue
        )
        self.encoder = Encoder(opened.model.tokenizer, self.template, data.train_on, self._watched)

    def make(self) -> Dataset:
        """Return the encoded examples, from the cache when nothing that changes a label has changed.

        Raises:
            LmflowError: a row cannot be used, or none is left; or the cache cannot be written.
        """
        key = self.key()
        if not self._data.cache:
            return self._made_for_once(key)
        folder = cache_root() / "data" / key
        with locked(folder):
            if (found := self._read(folder, key, from_cache=True)) is not None:
                return found
            shutil.rmtree(folder, ignore_errors=True)
            with atomic_cache_folder(folder) as scratch:
                self._write(scratch)
        found = self._read(folder, key, from_cache=False)
        assert found is not None, folder
        return found

    def _made_for_once(self, key: str) -> Dataset:
        """Return the examples from files that vanish at once: they live as long as they are mapped."""
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
            "tokenizer": self.encoder.tokenizer.fingerprint,
            "template": self.template.fingerprint if self.template else None,
            "train_on": data.train_on,
            "structure": structure_of(data),
            "max_length": self._limit,
            "context": self._context,
            "length_policy": data.length_policy,
            "max_train_samples": data.max_train_samples,
            "weights": data.dataset_weights,
            "eval_share": data.eval_share,
            "seed": self._seed if data.eval_share or data.dataset_weights else None,
            "accepted": self._accepted,
            "images": self._image_facts(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _image_facts(self) -> list[Any] | None:
        """Return what changes the tokens of images, besides their bytes; None for a model that does not see.

        Rows name images by paths beside the data file, so that the same rows elsewhere may show others.
        """
        if self._watched is None:
            return None
        return [
            self._watched.fingerprint,
            *(str(path.absolute()) for path in (*self._data.dataset, *self._data.image_folder)),
        ]

    def _write(self, folder: Path) -> None:
        self._write_rows(folder / _ROWS, self._selected(validation=False), self._purpose)
        if self._data.eval_share:
            self._write_rows(folder / _VALIDATION, self._selected(validation=True), "measure")
        if self._watched is not None:
            self._watched.save(folder / _IMAGES)

    def _selected(self, *, validation: bool) -> Iterable[Located]:
        return selected(self._data, self._catalogue, self._seed, self._accepted, validation=validation)

    def _write_rows(self, folder: Path, examples: Iterable[Located], purpose: str) -> None:
        folder.mkdir()
        policy = self._data.length_policy
        preparer = Preparer(self.encoder, self._limit, policy, purpose, context=self._context)
        writer = RowWriter(folder)
        preparer.prepare_into(writer, console.progress(examples, f"Preparing data to {purpose} on"))
        writer.close(dataclasses.asdict(preparer.counts))

    def _read(self, folder: Path, key: str, *, from_cache: bool) -> Dataset | None:
        rows = EncodedRows.mapped(folder / _ROWS)
        validation = EncodedRows.mapped(folder / _VALIDATION) if self._data.eval_share else None
        meta = read_meta(folder / _ROWS)
        if rows is None or meta is None or (self._data.eval_share and validation is None):
            return None
        if from_cache and self._watched is not None and not self._watched.unchanged(folder / _IMAGES):
            return None
        counts = Counts(**meta["facts"])
        return Dataset(rows, validation, counts, self.template_name, self.template, key, from_cache)
