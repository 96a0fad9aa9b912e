"""Reward models against plain loops, TRL's loss and plain transformers and peft, with every tuner."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lmflow_core.api import IGNORE, Conversation, EncodedExample, EncodedSequence, Message, Prompted, wilson
from lmflow_core.testing.references import FLAGS, TUNERS, finetuned
from lmflow_core.testing.tensors import differing
from lmflow_reward.losses import PairLoss, ScoreLoss
from lmflow_reward.options import RewardOptions
from lmflow_reward.scoring import RewardModel
from lmflow_transformers.api import check_values, collate, sequence_values

_STEPS, _PAIRS = 3, 4
_TURNS = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "{}<|im_end|>\n"


def _texts(number: int) -> tuple[str, str, str]:
    return f"hello {number}", "the quick brown fox " * (number + 1) + "jumps", "no " * (number + 2) + "dog"


def _row(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"instruction": prompt, "chosen": chosen, "rejected": rejected}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("datasets", "lisa", "lora"):
        pytest.importorskip(f"lmflow_{name}", reason="rows are read and models trained by other plugins")
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(_row(*_texts(number))) for number in range(_PAIRS)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def begun(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a reward model with a random head by plain transformers, so that all begin with one head."""
    folder = tmp_path_factory.mktemp("begun") / "model"
    torch.manual_seed(5)
    network: Any = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    with torch.no_grad():
        network.score.weight.normal_()
    network.config.pad_token_id = 0
    network.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.save_pretrained(folder)
    return folder


def _ids(tokenizer: Any, prompt: str, answer: str) -> list[int]:
    pieces = (_TURNS[0].format(prompt), _TURNS[1].format(answer))
    return [number for piece in pieces for number in tokenizer(piece, add_special_tokens=False).input_ids]


class _Loop:
    """A plain loop over single sequences, nothing packed, with PyTorch's optimizer."""

    def __init__(self, folder: Path, tuner: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network: Any = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
        self._tuner = tuner
        if tuner == "lora":
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(42)
            config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
            self.network = get_peft_model(self.network, config)
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0, eps=1e-3)
        self.network.eval()

    def reward(self, prompt: str, answer: str) -> Any:
        return self.network(input_ids=torch.tensor([_ids(self.tokenizer, prompt, answer)])).logits[0, 0]

    def step(self, number: int) -> tuple[float, float, float]:
        """Take a step; return the loss, the share of pairs in order and the mean margin."""
        if self._tuner == "lisa":
            self._thaw(number)
        self._optimizer.zero_grad(set_to_none=True)
        pairs = [(self.reward(p, c), self.reward(p, r)) for p, c, r in map(_texts, range(_PAIRS))]
        margins = torch.stack([chosen - rejected for chosen, rejected in pairs])
        loss = torch.log1p(torch.exp(-margins)).mean()
        loss.backward()
        self._optimizer.step()
        return float(loss), float((margins > 0).float().mean()), float(margins.mean())

    def _thaw(self, number: int) -> None:
        from lmflow_lisa.layers import sample_layers

        layers = self.network.model.layers
        (active,) = sample_layers(42, number, 1, len(layers))
        for place, layer in enumerate(layers):
            for parameter in layer.parameters():
                parameter.requires_grad_(place == active)
                if place != active:
                    self._optimizer.state.pop(parameter, None)


_CASES = [
    *((tuner, 1, []) for tuner in TUNERS),
    ("lora", 2, []),
    ("full", 2, []),
    ("full", 1, ["--pack-length", "160"]),
]


@pytest.mark.parametrize(("tuner", "processes", "pack"), _CASES)
def test_every_step_is_that_of_a_plain_loop(
    tuner: str, processes: int, pack: list[str], data: Path, begun: Path, tmp_path: Path
) -> None:
    flags = ["--model", begun, "--dataset", data, "--objective", "reward", *TUNERS[tuner], *FLAGS, *pack]
    flags += ["--epochs", _STEPS, "--batch-size", _PAIRS // processes]
    record = finetuned(tmp_path / "out", *flags, processes=processes)
    loop = _Loop(begun, tuner)
    steps = [loop.step(number) for number in range(_STEPS)]
    told = record["curves"]["training"]
    found = zip(record["losses"], told["accuracy"], told["margin"], strict=True)
    assert record["loss_unit"] == "pairs"
    assert set(told) == {"accuracy", "margin", "mean_reward", "chosen_reward", "rejected_reward"}
    for expected, values in zip(steps, found, strict=True):
        assert [value for _, value in values] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def _pairs() -> list[EncodedExample]:
    def sequence(*ids: int) -> EncodedSequence:
        return EncodedSequence(ids, [IGNORE, *ids[1:]])

    return [
        EncodedExample((sequence(5, 6, 7, 8), sequence(5, 9)), {"margin": (1.5,)}),
        EncodedExample((sequence(10, 11), sequence(10, 12, 13, 14, 15))),
        EncodedExample((sequence(3, 4, 4), sequence(3, 4, 9, 9)), {"margin": (0.25,)}),
    ]


@pytest.fixture(scope="module")
def network(begun: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(begun).eval()


@pytest.fixture(scope="module")
def rewards(network: Any) -> torch.Tensor:
    """Return the rewards of the pairs, (pairs, 2), by transformers, one sequence at a time."""
    with torch.no_grad():
        each = [network(torch.tensor([list(s.input_ids)])).logits[0, 0] for pair in _pairs() for s in pair.sequences]
    return torch.stack(each).view(-1, 2)


def _ours(loss: Any, network: Any, examples: Sequence[EncodedExample]) -> tuple[float, dict[str, float]]:
    batch = collate(examples, isolated=False)
    with torch.no_grad():
        output = loss(network, batch)
    metrics = {name: float(mean.total) / float(mean.count) for name, mean in output.metrics.items()}
    return float(output.total) / loss.units(batch), metrics


@pytest.mark.slow
@pytest.mark.parametrize("centering", [None, 0.01])
def test_loss_and_metrics_are_those_of_trl(network: Any, rewards: torch.Tensor, centering: float | None) -> None:
    trl = pytest.importorskip("trl", reason="its loss is compared with")
    from collections import defaultdict

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=centering),
        accelerator=SimpleNamespace(gather=lambda values: values, gather_for_metrics=lambda values: values),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    chosen_then_rejected = torch.cat([rewards[:, 0], rewards[:, 1]])[:, None]
    inputs = {"margin": torch.tensor([1.5, 0.0, 0.25])}
    theirs = trl.RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=chosen_then_rejected), inputs)
    loss, metrics = _ours(PairLoss(RewardOptions(reward_centering=centering or 0.0)), network, _pairs())
    assert loss == pytest.approx(float(theirs), abs=1e-6)
    for name in ("accuracy", "margin", "mean_reward"):
        assert metrics[name] == pytest.approx(trainer._metrics["eval"][name][0], abs=1e-6), name


def test_loss_and_metrics_follow_from_the_rewards(network: Any, rewards: torch.Tensor) -> None:
    options = RewardOptions(reward_margin_scale=2.0, reward_centering=0.1)
    loss, metrics = _ours(PairLoss(options), network, _pairs())
    chosen, rejected = rewards.double().unbind(1)
    apart = chosen - rejected - 2.0 * torch.tensor([1.5, 0.0, 0.25], dtype=torch.float64)
    expected = (torch.log1p(torch.exp(-apart)) + 0.1 * (chosen + rejected) ** 2).mean()
    assert loss == pytest.approx(float(expected), abs=1e-5)
    assert metrics["chosen_reward"] == pytest.approx(float(chosen.mean()), abs=1e-5)
    assert metrics["rejected_reward"] == pytest.approx(float(rejected.mean()), abs=1e-5)


def test_the_loss_of_scores_is_the_squared_difference(network: Any, rewards: torch.Tensor) -> None:
    scores = [(1.0, -2.0), (0.5, 0.25), (3.0, 0.0)]
    examples = [EncodedExample(pair.sequences, {"scores": s}) for pair, s in zip(_pairs(), scores, strict=True)]
    loss, metrics = _ours(ScoreLoss(), network, examples)
    differences = rewards - torch.tensor(scores)
    assert loss == pytest.approx(float((differences**2).mean()), rel=1e-5)
    assert metrics["absolute_error"] == pytest.approx(float(differences.abs().mean()), rel=1e-5)


def test_a_head_that_trains_may_be_more_precise_than_the_rest(begun: Path) -> None:
    from peft import LoraConfig, get_peft_model

    network: Any = AutoModelForSequenceClassification.from_pretrained(begun, dtype=torch.bfloat16)
    own = network(torch.tensor([[5, 6, 7]])).logits[0, 0]
    adapted: Any = get_peft_model(network, LoraConfig(task_type="SEQ_CLS", target_modules="all-linear"))
    head = network.score.modules_to_save["default"]
    head.weight.data = head.weight.data.float()
    check_values(adapted.get_base_model())
    batch = collate([EncodedExample((EncodedSequence([5, 6, 7], [5, 6, 7]),))], isolated=False)
    assert float(sequence_values(network, batch)[0]) == pytest.approx(float(own), abs=0.05)
    head.weight.data.zero_()
    assert float(sequence_values(network, batch)[0]) == 0.0


# ---- results


def _examples() -> list[Conversation | Prompted]:
    """Return examples of unequal length: conversations, and texts that end with the token that ends an answer."""
    turns = [Conversation((Message("user", p), Message("assistant", c))) for p, c, _ in map(_texts, range(_PAIRS))]
    return [*turns, Prompted("2 + 3 =", " 5"), Prompted("The capital of France is", " Paris, on the river Seine.")]


def _scored(folder: Path, tiny_model: Path) -> tuple[list[float], list[list[int]]]:
    """Return our rewards of the examples and their ids."""
    from lmflow_core.contracts.settings import ModelSettings
    from lmflow_core.generation.second_models import Models
    from lmflow_core.models.opening import open_model
    from lmflow_core.plugins.registry import Catalogue

    catalogue = Catalogue.discover()
    services = Models(catalogue)
    beside = open_model(ModelSettings(model=str(tiny_model), device="cpu"), catalogue).model
    model = RewardModel(str(folder), services, beside)
    encoded = services.encode_for(model.model, _examples())
    return model.score(_examples()), [list(example.sequences[0].input_ids) for example in encoded]


def _padded_rewards(network: Any, tokenizer: Any, ids: list[list[int]], side: str) -> list[float]:
    tokenizer.padding_side = side
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    with torch.no_grad():
        logits: torch.Tensor = network.eval()(**batch).logits
    return logits[:, 0].tolist()


@pytest.fixture(scope="module", params=["full", "lora", "qlora"])
def trained(request: pytest.FixtureRequest, data: Path, tiny_model: Path, tmp_path_factory: Any) -> tuple[str, Path]:
    if request.param == "qlora":
        pytest.importorskip("bitsandbytes", reason="quantises the weights")
    folder = tmp_path_factory.mktemp(request.param) / "out"
    flags = ["--model", tiny_model, "--dataset", data, "--objective", "reward", "--tuner", request.param]
    finetuned(folder, *flags, "--lr", "1e-2", "--epochs", 2, "--batch-size", 2)
    return request.param, folder


def test_plain_libraries_give_the_same_rewards(trained: tuple[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    tuner, folder = trained
    ours, ids = _scored(folder, tiny_model)
    assert len({round(reward, 6) for reward in ours}) == len(ours)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert ids[-1][-1] == tokenizer.eos_token_id != tokenizer.pad_token_id
    if tuner == "full":
        network: Any = AutoModelForSequenceClassification.from_pretrained(folder)
        assert network.config.pad_token_id == tokenizer.pad_token_id
    else:
        from peft import AutoPeftModelForSequenceClassification

        network = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        network.config.pad_token_id = tokenizer.pad_token_id  # as the model card says
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert 'AutoPeftModelForSequenceClassification.from_pretrained(".", num_labels=1)' in card
        assert "model.config.pad_token_id = tokenizer.pad_token_id" in card
    for side in ("right", "left"):
        assert _padded_rewards(network, tokenizer, ids, side) == pytest.approx(ours, abs=1e-4)


def test_a_merged_adapter_gives_the_same_rewards(trained: tuple[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    tuner, folder = trained
    if tuner == "full":
        pytest.skip("a whole model has nothing to merge")
    from lmflow_core.cli.main import run

    assert run(["merge", "--model", str(tiny_model), "--adapter", str(folder), "--output", str(tmp_path / "m")]) == 0
    ours, ids = _scored(folder, tiny_model)
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert _padded_rewards(network, tokenizer, ids, "right") == pytest.approx(ours, abs=1e-4)


def test_the_head_trains_in_float32_and_is_not_quantised(trained: tuple[str, Path], tiny_model: Path) -> None:
    tuner, folder = trained
    if tuner == "full":
        pytest.skip("the head is one of many weights")
    kept = {name: value for name, value in load_file(folder / "adapter_model.safetensors").items() if "score" in name}
    ((name, head),) = kept.items()
    assert (name, head.dtype, head.shape) == ("base_model.model.score.weight", torch.float32, (1, 32))
    torch.manual_seed(42)
    drawn: Any = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    assert differing({"score": drawn.score.weight.detach()}, {"score": head}), "the head did not train"
    assert float((drawn.score.weight - head).abs().max()) < 0.1, "it did not begin with what the seed draws"


# ---- resuming

_KILLED_AT_ITS_FIRST_CHECKPOINT = """
import os, signal, sys
from lmflow_core.cli.main import run
from lmflow_transformers.training import checkpointing
put = checkpointing.put_in_place
def put_and_end(*places):
    put(*places)
    os.kill(os.getpid(), signal.SIGKILL)
checkpointing.put_in_place = put_and_end
run(sys.argv[1:])
"""


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_a_killed_run_goes_on_to_the_same_weights(tuner: str, data: Path, tiny_model: Path, tmp_path: Path) -> None:
    name = "model.safetensors" if tuner == "full" else "adapter_model.safetensors"
    flags = ["--model", tiny_model, "--dataset", data, "--objective", "reward", "--tuner", tuner, "--lr", "1e-2"]
    flags += ["--batch-size", 1, "--save-steps", 2, "--epochs", 2]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finetuned(whole, *flags)
    command = [sys.executable, "-c", _KILLED_AT_ITS_FIRST_CHECKPOINT, "finetune", *map(str, flags)]
    ended = subprocess.run([*command, "--output", str(killed)], capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in (killed / "checkpoints").glob("checkpoint-*")] == ["checkpoint-2"]
    finetuned(killed, *flags, "--resume")
    weights = [load_file(folder / name) for folder in (whole, killed)]
    assert not differing(*weights)
    assert any("score" in key for key in weights[0])


# ---- the benchmark


def test_pairs_in_order_are_counted_with_their_interval(
    lmflow_cli: Callable[..., Any], trained: tuple[str, Path], data: Path, tiny_model: Path
) -> None:
    _, folder = trained
    told = lmflow_cli("evaluate", "--model", folder, "--benchmark", "pairwise-accuracy", "--dataset", data, "--json")
    assert told.status == 0, told.stderr
    found = told.json()["metrics"]
    from peft import AutoPeftModelForSequenceClassification

    loader: Any = AutoModelForSequenceClassification if trained[0] == "full" else AutoPeftModelForSequenceClassification
    network, tokenizer = loader.from_pretrained(folder, num_labels=1).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        margins = [
            float(_plain(network, tokenizer, prompt, chosen) - _plain(network, tokenizer, prompt, rejected))
            for prompt, chosen, rejected in map(_texts, range(_PAIRS))
        ]
    right = sum(margin > 0 for margin in margins)
    assert found["pairs"] == _PAIRS
    assert found["accuracy"] == right / _PAIRS
    assert found["margin"] == pytest.approx(sum(margins) / _PAIRS, abs=1e-4)
    assert (found["accuracy_at_least"], found["accuracy_at_most"]) == wilson(right, _PAIRS)


def _plain(network: Any, tokenizer: Any, prompt: str, answer: str) -> Any:
    return network(torch.tensor([_ids(tokenizer, prompt, answer)])).logits[0, 0]


def test_a_model_that_predicts_tokens_judges_by_mean_likelihood(
    lmflow_cli: Callable[..., Any], data: Path, tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    told = lmflow_cli(
        "evaluate", "--model", tiny_model, "--benchmark", "pairwise-accuracy", "--dataset", data, "--json"
    )
    network, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny_model).eval(),
        AutoTokenizer.from_pretrained(tiny_model),
    )

    def judged(prompt: str, answer: str) -> float:
        ids = _ids(tokenizer, prompt, answer)
        before = len(tokenizer(_TURNS[0].format(prompt), add_special_tokens=False).input_ids)
        after = len(tokenizer("\n", add_special_tokens=False).input_ids)
        with torch.no_grad():
            logprobs = network(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        each = logprobs.gather(1, torch.tensor(ids[1:])[:, None])[before - 1 : len(ids) - 1 - after, 0]
        return float(each.mean())

    margins = [judged(p, c) - judged(p, r) for p, c, r in map(_texts, range(_PAIRS))]
    found = told.json()["metrics"]
    assert found["margin"] == pytest.approx(sum(margins) / _PAIRS, abs=1e-4)
    assert found["accuracy"] == sum(margin > 0 for margin in margins) / _PAIRS


def test_the_interval_is_wilsons() -> None:
    # The roots of (p - right/count)^2 = z^2 p (1 - p) / count.
    for right, count in ((0, 3), (7, 10), (42, 60), (5, 5)):
        for bound in wilson(right, count):
            left = (bound - right / count) ** 2
            assert left == pytest.approx(1.959963984540054**2 * bound * (1 - bound) / count, abs=1e-12)


# ---- what cannot work


@pytest.fixture
def refused(lmflow_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that is refused before any weights are read, and return what it says."""
    from lmflow_transformers.models import CausalModel

    def never(self: CausalModel) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(CausalModel, "load", never)

    def run(*arguments: object) -> str:
        told = lmflow_cli(*arguments)
        assert told.status != 0
        assert "weights were loaded" not in told.stderr
        error: str = told.stderr
        return error

    return run


def test_a_reward_model_is_refused_where_tokens_are_needed(
    refused: Callable[..., str], begun: Path, data: Path, tmp_path: Path
) -> None:
    told = f"{begun} gives a number for a text, and "
    out = ["--output", tmp_path / "x"]
    cases = {
        "decoder 'sampling'": ["generate", "--model", begun, "--prompt", "hi"],
        "the likelihood of data": ["evaluate", "--model", begun, "--dataset", data],
        "--objective sft": ["finetune", "--model", begun, "--dataset", data, *out],
    }
    for needs, command in cases.items():
        assert f"{told}{needs} needs a model that predicts tokens" in refused(*command)
    assert "decoder 'sampling' needs" in refused("chat", "--model", begun)


def test_what_cannot_be_given_a_head_is_refused(
    refused: Callable[..., str], tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    network: Any = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    network.save_pretrained(two)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(two)
    command = ["finetune", "--dataset", data, "--objective", "reward", "--output", tmp_path / "x", "--model"]
    assert "gives 2 numbers for a text, where one is needed" in refused(*command, two)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "base_model_name_or_path": str(tiny_model)}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "has no head that gives a number: merge it first" in refused(*command, adapter, "--tuner", "lora")


def test_a_model_that_predicts_tokens_is_no_reward_model(tiny_model: Path) -> None:
    from lmflow_core.api import RequestError

    with pytest.raises(RequestError, match="is no reward model: lmflow finetune --objective reward trains one"):
        _scored(tiny_model, tiny_model)


def test_pairs_that_teach_nothing_are_left_out_and_counted(
    lmflow_cli: Callable[..., Any], tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    long = "the quick brown fox " * 100
    same, different, cut = _row("hi", "fox", "fox"), _row("hi", "fox", "no"), _row("hi", long + "a", long + "b")
    rest = ["--model", tiny_model, "--objective", "reward", "--length-policy", "truncate", "--max-steps", 1]
    command = ["finetune", *rest, "--output", tmp_path / "x", "--overwrite", "--dataset"]
    told = lmflow_cli(*command, write_rows([same, different, cut, _row(long, "fox", "no")]))
    assert told.status == 0, told.stderr
    assert "1 left out for want of a trainable token" in told.stderr
    assert "2 of 3 pairs left out: 2 as both answers are the same" in told.stderr
    told = lmflow_cli(*command, write_rows([same, cut]))
    assert "none of 2 pairs is left: 2 as both answers are the same" in told.stderr


@pytest.mark.parametrize(
    ("objective", "row", "told"),
    [
        ("reward", {"instruction": "hi", "chosen": "", "rejected": "no"}, "row 1: the field 'chosen' is empty"),
        ("reward", {"prompt": "2", "chosen": "5", "rejected": "6", "margin": float("nan")}, "'margin' is nan"),
        ("reward", {"text": "hello"}, "row 1: a text example, but the objective learns from preference"),
        ("reward", {"instruction": "fox " * 300, "chosen": "a", "rejected": "b"}, "row 1: 1 of 1 rows are longer"),
        ("reward-scores", {"input": "2", "output": [{"score": float("nan"), "text": "5"}]}, "'score' is nan"),
        ("reward-scores", {"input": "2", "output": ["5", "6"]}, "1 of 1 examples have no scores for their answers"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_told_of(
    lmflow_cli: Callable[..., Any],
    tiny_model: Path,
    write_rows: Callable[..., Path],
    tmp_path: Path,
    objective: str,
    row: dict[str, Any],
    told: str,
) -> None:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    flags = ["--model", tiny_model, "--dataset", write_rows([row]), "--objective", objective]
    found = lmflow_cli("finetune", *flags, "--output", tmp_path / "x")
    assert found.status != 0
    assert told in found.stderr
    assert "Traceback" not in found.stderr


# ---- the original's script


def test_the_script_of_the_original_works_with_the_launcher_replaced(
    lmflow_cli: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    folder, answers = tmp_path / "data", tmp_path / "answers"
    for each in (folder, answers):
        each.mkdir()

    def chat(number: int, prompt: str, answer: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        return {"conversation_id": number, "system": "Be kind.", "tools": [], "messages": turns}

    pairs = [
        {"chosen": chat(number, prompt, chosen), "rejected": chat(number, prompt, rejected)}
        for number, (prompt, chosen, rejected) in enumerate(map(_texts, range(_PAIRS)))
    ]
    document = {"type": "paired_conversation", "instances": pairs}
    (folder / "train.json").write_text(json.dumps(document), encoding="utf-8")
    # Flash attention needs a GPU, and a tracker an account.
    line = f"""--model_name_or_path {tiny_model} --do_train True --dataset_path {folder} --conversation_template chatml
        --overwrite_output_dir --use_flash_attention False --block_size 200 --learning_rate 1e-2
        --per_device_train_batch_size 1 --per_device_eval_batch_size 1 --num_train_epochs 3 --weight_decay 0.001
        --evaluation_strategy steps --save_strategy steps --save_steps 999999 --gradient_accumulation_steps 4
        --gradient_checkpointing True --remove_unused_columns False --bf16 True --logging_strategy steps
        --logging_steps 1 --optim paged_adamw_32bit --lr_scheduler_type cosine --warmup_ratio 0.03 --run_name rm
        --do_eval True --eval_dataset_path {folder} --eval_steps 999999 --preprocessing_num_workers 4
        --arch_type text_regression"""
    record = finetuned(tmp_path / "out", *line.split())
    losses = [loss for _, loss in record["losses"]]
    assert (len(losses), record["loss_unit"], record["options"]["objective"]) == (3, "pairs", "reward")
    assert losses[-1] < losses[0] == pytest.approx(0.6931, abs=0.3)
    # What the original gave a reward model to score: answers without scores.
    texts = [{"input": prompt, "output": [chosen, rejected]} for prompt, chosen, rejected in map(_texts, range(_PAIRS))]
    unscored = {"type": "text_to_textlist", "instances": texts}
    (answers / "test.json").write_text(json.dumps(unscored), encoding="utf-8")
    flags = ["--reward_model_name_or_path", tmp_path / "out", "--output", tmp_path / "scored.jsonl"]
    told = lmflow_cli("data", "score", "--dataset", answers, "--reward", "model", *flags)
    assert told.status == 0, told.stderr
    rows = [json.loads(text) for text in (tmp_path / "scored.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [len(row["scores"]) for row in rows] == [2] * _PAIRS
    refused = lmflow_cli(*f"finetune --model {tiny_model} --dataset {answers} --objective reward --output x".split())
    assert "a candidates example, but the objective learns from preference" in refused.stderr


# ---- what comes up


def test_a_judge_with_another_vocabulary_and_template_scores_text(
    lmflow_cli: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    """The answers of a policy are tokenised anew by the tokenizer and the template of the model that judges them."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from lmflow_core.testing.tiny import make_tokenizer

    pytest.importorskip("lmflow_raft", reason="the policy learns with it")
    tokenizer = make_tokenizer(300)
    turn = "{{ '[' + message['role'] + '] ' + message['content'] + '<|im_end|>' }}"
    tokenizer.chat_template = "{% for message in messages %}" + turn + "{% endfor %}"
    tokenizer.pad_token = "<|endoftext|>"
    shape = LlamaConfig.from_pretrained(tiny_model)
    shape.vocab_size, shape.num_labels, shape.pad_token_id = len(tokenizer), 1, 0
    torch.manual_seed(7)
    network: Any = LlamaForSequenceClassification(shape).eval()
    judge = tmp_path / "judge"
    network.save_pretrained(judge)
    tokenizer.save_pretrained(judge)
    assert len(tokenizer) != len(AutoTokenizer.from_pretrained(tiny_model))
    data = tmp_path / "prompts.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"say {number}"}) for number in range(4)), encoding="utf-8")
    flags = ["--model", tiny_model, "--dataset", data, "--objective", "raft", "--reward", "model"]
    flags += ["--reward-model", judge, "--raft-samples", 3, "--raft-max-new-tokens", 5, "--lr", "1e-3"]
    finetuned(tmp_path / "out", *flags)
    (file,) = (tmp_path / "out" / "checkpoints" / "samples").glob("step-*.jsonl")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(samples) == 12
    for sample in samples:
        asked, answered = sample["messages"]
        text = f"[user] {asked['content']}<|im_end|>[assistant] {answered['content']}<|im_end|>"
        with torch.no_grad():
            reward = float(network(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0])
        assert sample["reward"] == pytest.approx(reward, abs=1e-4)
