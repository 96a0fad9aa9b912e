"""Data encoded for a model to be looked at: as training would, but with no length policy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DataSettings, ModelSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.contracts.tokens import EncodedExample
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import Located
from lmflow_core.data.preparation import Preparer
from lmflow_core.data.selection import example_reader, first_examples
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.templates.choosing import choose_template_for


def encoded_examples(
    model: ModelSettings, data: DataSettings, catalogue: Catalogue, rows: int | None
) -> tuple[LanguageModel, Iterator[tuple[Located, EncodedExample]]]:
    """Return the model and the first rows, encoded.

    Args:
        model: whose tokenizer is used.
        data: which data, and how rows become tokens.
        catalogue: the components there are.
        rows: how many; None is all.

    Raises:
        LmflowError: the data or the model's tokenizer cannot be used.
    """
    opened = open_model(model, catalogue, runtime=TORCH)
    _, template = choose_template_for(first_examples(data, catalogue), data.template, opened, catalogue)
    encoder = Encoder(opened.model.tokenizer, template, data.train_on, opened.model.media)
    examples = itertools.islice(example_reader(data, catalogue).read(data.dataset), rows)
    preparer = Preparer(encoder, None, data.length_policy)
    return opened.model, preparer.encode(console.progress(examples, "Reading data"))
