"""Examples to token ids and labels: each is rendered, split into runs, and put together from what these encode to."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lmflow_core.contracts.examples import Example, Prompt, Segment
from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import (
    IGNORE,
    EncodedExample,
    EncodedSequence,
    Media,
    MediaTokenizer,
    Tokenizer,
)
from lmflow_core.data.rendering import ExampleRenderer
from lmflow_core.data.runs import Runs, RunSplitter

_UNLABELLED = array("i", (IGNORE,))


class SplitExample(NamedTuple):
    """An example that waits for the tokenizer: the runs of each of its sequences, its numbers, and its prompt."""

    sequences: Sequence[Runs]
    numbers: Mapping[str, tuple[float, ...]]
    prompt: Prompt | None = None


class Encoder:
    """Encodes examples with one tokenizer and one (bound) template.

    Attributes:
        tokenizer: of the model.
        template: of conversations; None where there are none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template | None,
        train_on: str = "assistant",
        media: MediaTokenizer | None = None,
    ) -> None:
        """Encode with these.

        Args:
            tokenizer: of the model.
            template: bound to it, or None.
            train_on: the policy of :func:`lmflow_core.contracts.examples.with_training`.
            media: what makes tokens of images, for a model that sees.
        """
        self.tokenizer = tokenizer
        self.template = template
        self._renderer = ExampleRenderer(tokenizer, template, train_on)
        self._splitter = RunSplitter(tokenizer, media)

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """Encode a batch of examples in one call of the tokenizer.

        Raises:
            ValueError: an example does not fit the template, there is none, or an image cannot be taken.
        """
        return self.encode_split([self.split(example) for example in examples])

    def split(self, example: Example) -> SplitExample:
        """Return an example rendered and split: all that is to do before the tokenizer works.

        Raises:
            ValueError: as :meth:`encode`.
        """
        rendered = self._renderer.render(example)
        sequences = [self._splitter.split(segments) for segments in rendered.sequences]
        if not rendered.labelled:
            for runs in sequences:
                for run in runs:
                    run.trainable = False
        return SplitExample(sequences, rendered.numbers, example if isinstance(example, Prompt) else None)

    def encode_split(self, examples: Sequence[SplitExample]) -> list[EncodedExample]:
        """Encode examples that :meth:`split` returned, in one call of the tokenizer."""
        encoded = self._encoded([runs for example in examples for runs in example.sequences])
        return [EncodedExample(tuple([next(encoded) for _ in e.sequences]), e.numbers, e.prompt) for e in examples]

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[EncodedSequence]:
        """Encode rendered sequences in one call of the tokenizer.

        Raises:
            ValueError: an image cannot be taken.
        """
        return [*self._encoded([self._splitter.split(segments) for segments in rendered])]

    def opened(self, *segments: Segment) -> tuple[Segment, ...]:
        """Return the segments of a plain text behind the token that opens it, where the model wants one."""
        return self._renderer.opened(*segments)

    def _encoded(self, sequences: Sequence[Runs]) -> Iterator[EncodedSequence]:
        texts = [run for runs in sequences for run in runs if run.known is None]
        encoded = iter(self.tokenizer.encode([run.text for run in texts], [run.continues for run in texts]))
        return (_assembled(runs, encoded) for runs in sequences)


def _assembled(runs: Runs, encoded: Iterator[list[int]]) -> EncodedSequence:
    input_ids, labels = array("i"), array("i")
    media: tuple[Media, ...] = ()
    for run in runs:
        known = run.known
        ids = array("i", next(encoded) if known is None else known.ids)
        if known is not None and known.image is not None:
            media += (Media(known.image.source, known.digest, start=len(input_ids), tokens=len(ids)),)
        input_ids += ids
        labels += ids if run.trainable else _UNLABELLED * len(ids)
    return EncodedSequence(input_ids, labels, media)
