"""The contract of models: opened without weights, a tokenizer that keeps text text, likelihoods that add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.model import LanguageModel, LoadPlan, Quantization
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.tokens import IGNORE, EncodedSequence, Tokenizer
from lmflow_core.errors import LmflowError, ModelError, RequestError
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract, filled
from lmflow_core.testing.disks import changes, digests_of
from lmflow_core.testing.fitting import misfits
from lmflow_core.testing.forms import made_in

_IDS = [[7, 90, 17, 42, 8, 250, 33], list(range(100, 130)), [60, 61], [5, 5, 5, 5, 9]]
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
# ASCII to the full-width forms that some tokenizers read as the same.
_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def _texts(sequences: Sequence[Sequence[int]] = _IDS) -> list[EncodedSequence]:
    return [EncodedSequence(list(ids), list(ids)) for ids in sequences]


class ModelContract(ComponentContract):
    """What a model must do: on a small one, in a form that the loader opens, or on the one it brings.

    Attributes:
        reference: what ``--model`` takes; None is a small model, or the loader's own name where it opens no form.
        texts: that the tokenizer keeps as they are.
        tolerance: share by which likelihoods of one text may differ.
    """

    kind: ClassVar[str] = "model"
    reference: ClassVar[str | None] = None
    texts: ClassVar[Sequence[str]] = (
        "Hello world",
        "Größe, naïve",
        "Привет",
        "你好，世界",
        "مرحبا",
        "a\tb\n  c",
        "🙂 3.14",
    )
    tolerance: ClassVar[float] = 1e-4

    @classmethod
    def made(cls, target: Any, option_values: Any = None) -> Any:
        """Return a loader."""
        return target()

    @pytest.fixture(scope="class")
    @classmethod
    def small(cls, spec: Any, catalogue: Catalogue, request: Any, tmp_path_factory: Any) -> dict[str, Path]:
        """Return a small model in each form the loader opens that something here makes."""
        if cls.reference is not None and spec.model_types:
            return {"folder": Path(str(filled(cls.reference, request)))}
        folder = request.getfixturevalue("peaked_model") if spec.references else Path()
        forms = sorted(spec.references, key=lambda form: form not in spec.native)
        made = {form: made_in(form, folder, catalogue, tmp_path_factory.mktemp("form")) for form in forms}
        return {form: path for form, path in made.items() if path is not None}

    @pytest.fixture(scope="class")
    @classmethod
    def opened_by(cls, spec: Any, small: dict[str, Path], request: Any) -> str:
        """Return the reference that is opened."""
        if cls.reference is not None:
            return str(filled(cls.reference, request))
        if spec.references and not small:
            pytest.skip(f"nothing here makes a model of the form {' or '.join(spec.references)}: give a reference")
        return str(next(iter(small.values()))) if small else str(spec.name)

    @classmethod
    def _open(cls, target: Any, reference: str) -> LanguageModel:
        model: LanguageModel = cls.made(target).open(reference, ModelSettings(model=reference, device="cpu"))
        return model

    @pytest.fixture
    def fresh(self, target: Any, opened_by: str) -> LanguageModel:
        """Return the model, opened and not loaded."""
        return self._open(target, opened_by)

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, target: Any, opened_by: str) -> LanguageModel:
        """Return the loaded model."""
        model = cls._open(target, opened_by)
        model.load()
        return model

    def test_it_opens_without_weights(self, fresh: LanguageModel) -> None:
        """Before its weights are loaded it tells of itself, and refuses to score."""
        assert isinstance(fresh.plan, LoadPlan), f"its plan is {fresh.plan!r}, no LoadPlan"
        assert fresh.tokenizer.encode(["Hello"], [False])[0], "its tokenizer makes no token of a word"
        try:
            list(fresh.score(_texts()))
        except LmflowError:
            return
        except Exception as error:
            pytest.fail(f"scoring without weights raises {type(error).__name__}: {error}; raise a ModelError")
        pytest.fail("it scores before load() was called")

    def test_the_model_fits_its_protocol(self, model: LanguageModel) -> None:
        """The open model and its tokenizer have all of their protocols, with values that make sense."""
        problems = [*misfits(model, LanguageModel), *(f"tokenizer: {p}" for p in misfits(model.tokenizer, Tokenizer))]
        assert not problems, "; ".join(problems)
        length = model.context_length
        assert length is None or (isinstance(length, int) and length > 0), f"its context is {length!r} tokens"
        assert model.folder is None or model.folder.is_dir(), f"its folder {model.folder} is not there"

    def test_text_comes_back(self, model: LanguageModel) -> None:
        """Texts of several scripts come back from their tokens, and a batch is encoded as each alone."""
        tokenizer = model.tokenizer
        together = tokenizer.encode(list(self.texts), [False] * len(self.texts))
        for text, ids in zip(self.texts, together, strict=True):
            assert tokenizer.encode([text], [False]) == [ids], f"{text!r} is encoded otherwise beside others"
            assert tokenizer.decode(ids).strip() == text.strip(), f"{text!r} comes back as {tokenizer.decode(ids)!r}"

    def test_text_goes_on(self, model: LanguageModel) -> None:
        """A text that continues another joins it without a gap."""
        for parts in (["Hello", " world"], ["num", "ber"], ["a\n", "b"]):
            ids = model.tokenizer.encode(parts, [False, True])
            found = model.tokenizer.decode([token for part in ids for token in part])
            assert found.strip() == "".join(parts), f"{parts} become {found!r}"

    def test_plain_text_gives_no_control_token(self, model: LanguageModel) -> None:
        """What looks like a control token in a text stays text; control tokens are told by their ids."""
        control = model.tokenizer.control_tokens
        for name, number in control.items():
            assert model.tokenizer.decode([number]).strip() == name.strip(), f"{number} is not decoded as {name!r}"
            for text in (name, f"a{name}b", name.translate(_WIDE)):
                (ids,) = model.tokenizer.encode([text], [False])
                made = set(ids) & set(control.values())
                assert not made, f"the text {text!r} becomes the control tokens {sorted(made)}"

    def test_the_fingerprint_is_steady(self, model: LanguageModel, fresh: LanguageModel) -> None:
        """The fingerprint of its tokenizer is the same whenever it is opened."""
        assert model.tokenizer.fingerprint, "it has no fingerprint"
        assert model.tokenizer.fingerprint == fresh.tokenizer.fingerprint, "opened again, it has another fingerprint"

    def test_likelihoods_add_up(self, model: LanguageModel) -> None:
        """A score is the sum over the labelled tokens alone, with their number."""
        ids = _IDS[0]
        (whole,) = model.score(_texts([ids]))
        single = [
            EncodedSequence(ids, [token if place == at else IGNORE for place, token in enumerate(ids)])
            for at in range(1, len(ids))
        ]
        parts = list(model.score(single))
        assert [part.tokens for part in parts] == [1] * len(parts), "one labelled token does not count as one"
        assert whole.tokens == len(ids) - 1, (
            f"{whole.tokens} tokens count of {len(ids)}, whose first has none before it"
        )
        assert whole.correct is None or 0 <= whole.correct <= whole.tokens, f"{whole.correct} guesses are right"
        total = sum(part.nll for part in parts)
        assert whole.nll == pytest.approx(total, rel=self.tolerance), f"{whole.nll} together, and {total} one by one"

    def test_company_changes_no_score(self, model: LanguageModel) -> None:
        """Scores come in order, and each is the one the sequence has alone."""
        alone = [next(iter(model.score([text]))).nll for text in _texts()]
        together = [score.nll for score in model.score(iter(_texts()))]
        assert together == pytest.approx(alone, rel=self.tolerance), f"{together} together, and {alone} alone"
        turned = [score.nll for score in model.score(_texts(_IDS[::-1]))]
        assert turned == pytest.approx(alone[::-1], rel=self.tolerance), "in another order the scores are others"

    def test_plain_transformers_agrees(self, model: LanguageModel, small: dict[str, Path], request: Any) -> None:
        """Plain transformers gives the same likelihoods, from the model's own files."""
        from lmflow_core.testing.tensors import plain_nll

        folder = model.folder or (request.getfixturevalue("peaked_model") if small and self.reference is None else None)
        if folder is None:
            pytest.skip("the model has no files of transformers' form to compare with")
        found, wanted = [score.nll for score in model.score(_texts())], plain_nll(folder, _IDS, model.plan.task)
        assert found == pytest.approx(wanted, rel=self.tolerance), f"{found}, and {wanted} by plain transformers"

    def test_every_form_is_the_model(self, target: Any, model: LanguageModel, small: dict[str, Path]) -> None:
        """Each form that it opens gives the same likelihoods."""
        if self.reference is not None:
            return
        wanted = [score.nll for score in model.score(_texts())]
        for form, path in list(small.items())[1:]:
            other = self._open(target, str(path))
            other.load()
            found = [score.nll for score in other.score(_texts())]
            assert found == pytest.approx(wanted, rel=self.tolerance), f"opened from {form}: {found}, not {wanted}"

    def test_unknown_plans_are_refused(self, fresh: LanguageModel) -> None:
        """A plan it cannot follow is refused by name, and the one before stays."""
        before = fresh.plan
        wrong = {
            "task 'no-such-task'": replace(before, task="no-such-task"),
            "quantization 'no-such-form'": replace(before, quantization=Quantization("no-such-form")),
        }
        for name, plan in wrong.items():
            told = ""
            try:
                fresh.accept(plan)
            except RequestError as error:
                told = str(error)
            assert told, f"it takes the {name}"
            words = name.replace("'", "").split()
            assert any(word in told for word in words), f"the error names neither {' nor '.join(words)}: {told}"
            assert fresh.plan == before, f"behind a refusal, its plan is {fresh.plan}"

    def test_a_saved_model_is_the_model(self, target: Any, model: LanguageModel, tmp_path: Path) -> None:
        """What it saves is opened again with the same likelihoods, and holds no pickle."""
        try:
            model.save(tmp_path, None)
        except LmflowError as error:
            pytest.skip(f"it is not saved: {error}")
        pickled = [path.name for path in tmp_path.rglob("*") if path.suffix in _PICKLED]
        assert not pickled, f"pickled: {', '.join(pickled)}"
        settings = ModelSettings(model=str(tmp_path), device="cpu")
        again = open_model(settings, Catalogue.discover()).load()
        found, wanted = ([score.nll for score in each.score(_texts())] for each in (again, model))
        assert found == pytest.approx(wanted, rel=self.tolerance), f"saved and opened: {found}, and {wanted} before"

    def test_what_is_not_there_is_told(self, spec: Any, target: Any, tmp_path: Path) -> None:
        """A reference to nothing, and one to an empty folder or file, is a ModelError."""
        wrong = {
            "folder": [tmp_path / "nothing", tmp_path],
            "gguf": [tmp_path / "nothing.gguf", tmp_path / "empty.gguf"],
        }
        (tmp_path / "empty.gguf").touch()
        for form in spec.references:
            for path in wrong.get(form, ()):
                try:
                    self._open(target, str(path)).load()
                except ModelError:
                    continue
                except Exception as error:
                    pytest.fail(f"{path.name} raises {type(error).__name__}: {error}; raise a ModelError")
                pytest.fail(f"it opens {path.name}, where no model is")

    def test_opened_twice_they_are_two(self, fresh: LanguageModel, model: LanguageModel, target: Any) -> None:
        """Two models that were opened from one reference are apart, and loading again changes nothing."""
        wanted = [score.nll for score in model.score(_texts())]
        model.load()
        fresh.load()
        assert [score.nll for score in fresh.score(_texts())] == wanted, "opened again, it gives other likelihoods"
        assert [score.nll for score in model.score(_texts())] == wanted, "loaded again, it gives other likelihoods"

    def test_it_changes_no_file(self, target: Any, small: dict[str, Path]) -> None:
        """Opening, loading and scoring leave the files of a model as they are."""
        for path in small.values():
            place = path if path.is_dir() else path.parent
            before = digests_of(place)
            model = self._open(target, str(path))
            model.load()
            list(model.score(_texts()))
            changed = changes(before, digests_of(place))
            assert not changed, f"it changed {', '.join(changed)}"
