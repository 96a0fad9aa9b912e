"""A GGUF file as a model of LMFlow: opened by its vocabulary, loaded when it is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lmflow_core.api import IGNORE, EncodedSequence, LoadPlan, ModelError, ModelSettings, RequestError, Score
from lmflow_gguf.contexts import BATCH, Context, Part, Session
from lmflow_gguf.header import read_header
from lmflow_gguf.runtime import Weights
from lmflow_gguf.tokenizer import GgufTokenizer
from lmflow_gguf.trial import try_file

# What a plan may ask of a model besides, with the defaults that change nothing.
_ONLY_IN_TORCH = ("task", "sharded", "quantization", "new_tokens")


class LlamaCppModel:
    """A model that llama.cpp runs on the processor.

    Contexts stay between answers, so that a prompt that begins like an earlier one is not evaluated again.
    """

    folder: Path | None = None
    media = None

    def __init__(self, reference: str, file: Path, adapter: Path | None = None) -> None:
        self.reference = reference
        self.plan = LoadPlan()
        self.file = file
        self.adapter = adapter
        self.tokenizer = GgufTokenizer(file)
        self._weights: Weights | None = None
        self._lock = threading.Lock()
        self._idle: list[Session] = []

    @cached_property
    def context_length(self) -> int | None:
        """The longest sequence the model was made for, in tokens."""
        keys = self.tokenizer.header.keys
        length = keys.get(f"{keys.get('general.architecture')}.context_length")
        return length if isinstance(length, int) else None

    @cached_property
    def follows_context(self) -> bool:
        """Whether positions depend on the size of a context, not on the text: there are two sets of their factors."""
        return any("rope_factors_long" in name for name in self.tokenizer.header.tensors)

    @cached_property
    def bytes_per_token(self) -> int:
        """Memory of one token's keys and values: measured, as architectures differ in what they keep."""
        context = Context(self.weights, 1)
        context.read([Part(0, 0, [0], 0)])
        return max(1, context.state_size(0))

    def accept(self, plan: LoadPlan) -> None:
        """Take a plan. llama.cpp reads a file's weights as they are; device and number format are its own choice.

        Raises:
            RequestError: the plan asks for more than the next token of the model as it is.
        """
        if plan.attention is not None:
            raise RequestError(
                f"--attention: {self.reference} runs in llama-cpp, which attends in its own way: leave --attention out"
            )
        if plan.positions is not None:
            raise RequestError(
                f"--position-scaling: the positions of {self.reference} cannot be scaled by its runtime, llama-cpp"
            )
        changes = [name for name in _ONLY_IN_TORCH if getattr(plan, name) != getattr(LoadPlan, name)]
        if changes:
            raise RequestError(
                f"{self.reference} runs in llama-cpp, which reads a file as it is and cannot change its "
                f"{' and '.join(changes).replace('_', ' ')}"
            )
        self.plan = plan

    @property
    def weights(self) -> Weights:
        """The loaded weights.

        Raises:
            ModelError: :meth:`load` was not called.
        """
        if self._weights is None:
            raise ModelError(f"the weights of {self.reference} are not loaded")
        return self._weights

    def load(self) -> None:
        """Load the weights; they are mapped, so the system reads them as they are needed."""
        if self._weights is None:
            self._weights = Weights(self.file)

    def session(self, length: int, threads: int | None = None, prompt: Sequence[int] = ()) -> Session:
        """Return a context with room for some tokens, for one user at a time: :meth:`give_back` it afterwards.

        It is the one given back whose cache begins most like the prompt, or a new one.
        """
        with self._lock:
            fitting = [session for session in self._idle if session.length >= length]
            if fitting:
                best = max(fitting, key=lambda session: session.in_common(prompt))
                self._idle.remove(best)
                return best
            self._idle.clear()  # too short for what is asked today
        return Session(self.weights, length, threads=threads, adapter=self.adapter)

    def give_back(self, session: Session) -> None:
        """Let another answer use a context, and what is in its cache."""
        with self._lock:
            self._idle.append(session)

    def score(self, sequences: Iterable[EncodedSequence]) -> Iterator[Score]:
        """Yield each sequence's summed NLL, computed with the cache in float32."""
        session: Session | None = None
        for sequence in sequences:
            if session is None or session.length < len(sequence.input_ids):
                session = None
                session = Session(self.weights, len(sequence.input_ids), exact=True, adapter=self.adapter)
            session.keep(0)
            yield _score(session, sequence)

    def save(self, folder: Path, chat_template: str | None) -> None:
        """Refuse: the file itself is the model.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{self.reference} is run by llama.cpp and cannot be saved in another form")


def _score(session: Session, example: EncodedSequence) -> Score:
    ids, labels = example.input_ids, example.labels
    total, count, right = 0.0, 0, 0
    for start in range(0, len(ids) - 1, BATCH):
        part = ids[start : start + BATCH]
        session.evaluate(part, outputs=True)
        rows = session.logits(len(part))
        for place in range(min(len(part), len(ids) - 1 - start)):
            label = labels[start + place + 1]
            if label != IGNORE:
                total += _nll(rows[place], label)
                count += 1
                right += int(rows[place].argmax() == label)
    return Score(total, count, right)


def _nll(logits: np.ndarray, label: int) -> float:
    top = float(logits.max())
    return top + float(np.log(np.exp(logits - top).sum(dtype=np.float64))) - float(logits[label])


class LlamaCppLoader:
    """Opens GGUF files."""

    def open(self, reference: str, settings: ModelSettings) -> LlamaCppModel:
        """Open a GGUF file, and an adapter file that is put on it.

        Raises:
            ModelError: there is no such file, or it is damaged.
        """
        file = Path(reference).expanduser()
        if not file.is_file():
            raise ModelError(f"no such file: {reference}")
        read_header(file)
        try_file(file, settings.adapter)
        return LlamaCppModel(reference, file, settings.adapter)
