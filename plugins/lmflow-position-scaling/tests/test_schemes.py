"""Frequencies by hand, by transformers, and in the model; the configuration that is saved; and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, PhiConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lmflow_core.api import IGNORE, EncodedSequence, ModelError, ModelSettings, RequestError, Rope, ScaledPositions
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.tiny import make_tiny_model, make_tokenizer
from lmflow_position_scaling import schemes
from lmflow_position_scaling.options import LongRopeOptions, YarnOptions
from lmflow_transformers import rotary
from lmflow_transformers.models import CausalModel, CausalModelLoader

THETA, DIMENSION, LENGTH = 100000.0, 64, 8192
ROPE = Rope({"rope_type": "default", "rope_theta": THETA}, DIMENSION, LENGTH)
SCHEMES: dict[str, Any] = {
    "linear": schemes.linear,
    "ntk": schemes.ntk,
    "dynamic-ntk": schemes.dynamic_ntk,
    "yarn": schemes.yarn,
    "llama3": schemes.llama3,
    "longrope": schemes.longrope,
}
Cli = Callable[..., CliResult]


def _unscaled(theta: float = THETA) -> list[float]:
    return [theta ** (-2 * i / DIMENSION) for i in range(DIMENSION // 2)]


def _by_parts(factor: float, low: float, high: float, wavelength_in: Callable[[float], float]) -> list[float]:
    """Each frequency between divided and kept, by a ramp of ``wavelength_in`` from ``low`` to ``high``."""
    blended = []
    for frequency in _unscaled():
        kept = min(1.0, max(0.0, (wavelength_in(frequency) - low) / (high - low)))
        blended.append(frequency * kept + frequency / factor * (1 - kept))
    return blended


def _turns(frequency: float) -> float:
    return LENGTH * frequency / (2 * math.pi)


def _yarn(factor: float) -> list[float]:
    """YaRN as its authors implement it: the ramp runs over the number of the dimension, between whole numbers."""

    def dimension(turns: float) -> float:
        return DIMENSION * math.log(LENGTH / (turns * 2 * math.pi)) / (2 * math.log(THETA))

    low, high = math.floor(dimension(32)), math.ceil(dimension(1))
    kept = [1 - min(1.0, max(0.0, (i - low) / (high - low))) for i in range(DIMENSION // 2)]
    return [f * k + f / factor * (1 - k) for f, k in zip(_unscaled(), kept, strict=True)]


def _papers(factor: float, length: int) -> dict[str, tuple[list[float], float]]:
    """The papers' frequencies and factors of attention at a length."""
    power = DIMENSION / (DIMENSION - 2)
    dynamic = max(1.0, factor * length / LENGTH - (factor - 1))
    beyond = length > LENGTH
    return {
        "linear": ([f / factor for f in _unscaled()], 1.0),
        "ntk": (_unscaled(THETA * factor**power), 1.0),
        "dynamic-ntk": (_unscaled(THETA * dynamic**power), 1.0),
        "yarn": (_yarn(factor), 0.1 * math.log(factor) + 1),
        "llama3": (_by_parts(factor, 1.0, 4.0, _turns), 1.0),
        "longrope": (
            _unscaled(THETA * factor**power) if beyond else _unscaled(),
            math.sqrt(1 + math.log(factor) / math.log(LENGTH)),
        ),
    }


def _config(**changes: Any) -> LlamaConfig:
    values: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 128,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": DIMENSION,
        "max_position_embeddings": LENGTH,
        "rope_parameters": {"rope_type": "default", "rope_theta": THETA},
    }
    return LlamaConfig(**{**values, **changes})


def _scaled(name: str, factor: float, options: Any = None, config: Any = None) -> Any:
    config = config or _config()
    rotary.scale(config, ScaledPositions(name, SCHEMES[name], factor, options))
    return config


def _angles(network: Any, length: int) -> tuple[torch.Tensor, float]:
    """The frequencies a network really uses at a length, from the cosines and sines of position 1."""
    position = torch.tensor([[1, length - 1]])
    cosine, sine = network.model.rotary_emb(torch.zeros(1, 1), position)
    half = cosine.shape[-1] // 2
    attention = torch.hypot(cosine[0, 0, :half], sine[0, 0, :half])
    return torch.atan2(sine[0, 0, :half], cosine[0, 0, :half]), float(attention.mean())


@pytest.mark.parametrize("length", [1000, LENGTH, 12288])
@pytest.mark.parametrize("factor", [1.5, 2.0, 8.0])
@pytest.mark.parametrize("name", SCHEMES)
def test_the_networks_frequencies_are_the_papers_and_transformers(name: str, factor: float, length: int) -> None:
    config = _scaled(name, factor)
    network = AutoModelForCausalLM.from_config(config)
    rotary.check(network)
    used, attention = _angles(network, length)
    wanted, wanted_attention = _papers(factor, length)[name]
    torch.testing.assert_close(used, torch.tensor(wanted), rtol=1e-5, atol=1e-6)
    assert attention == pytest.approx(wanted_attention, abs=1e-6)
    kind = config.rope_parameters["rope_type"]
    if kind != "default":
        theirs, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
        torch.testing.assert_close(used, theirs, rtol=1e-5, atol=1e-6)


def test_the_fixed_ntk_base_of_the_notes() -> None:
    rope = schemes.ntk(Rope({"rope_theta": 10000.0}, 128, 2048), 4.0)
    assert rope.parameters["rope_theta"] == pytest.approx(40889.94, abs=0.01)
    assert rope.length == 8192


@pytest.mark.parametrize("name", SCHEMES)
def test_factor_one_is_the_identity(name: str) -> None:
    rope = SCHEMES[name](ROPE, 1.0)
    config = _config(rope_parameters=dict(rope.parameters))
    used, attention = _angles(AutoModelForCausalLM.from_config(config), 12288)
    torch.testing.assert_close(used, torch.tensor(_unscaled()), rtol=1e-5, atol=1e-6)
    assert attention == pytest.approx(1.0, abs=1e-6)
    assert _scaled(name, 1.0).to_dict() == _config().to_dict()


def test_theta_survives_and_the_length_grows_except_where_it_means_the_trained_one() -> None:
    for name in SCHEMES:
        config = _scaled(name, 4.0)
        expected = THETA * 4 ** (DIMENSION / (DIMENSION - 2)) if name == "ntk" else THETA
        assert config.rope_parameters["rope_theta"] == pytest.approx(expected)
        assert config.max_position_embeddings == (LENGTH if name == "dynamic-ntk" else 4 * LENGTH)
        assert rotary.reach(config) == 4 * LENGTH


def test_options_reach_the_configuration() -> None:
    config = _scaled("yarn", 2.0, YarnOptions(yarn_beta_fast=16.0, yarn_beta_slow=2.0))
    assert (config.rope_parameters["beta_fast"], config.rope_parameters["beta_slow"]) == (16.0, 2.0)
    given = LongRopeOptions(longrope_short_factor=(1.0,) * 32, longrope_long_factor=(3.0,) * 32)
    assert _scaled("longrope", 3.0, given).rope_parameters["long_factor"] == [3.0] * 32
    with pytest.raises(RequestError, match="--longrope-long-factor: the model has 32 frequencies, not 2"):
        _scaled("longrope", 2.0, LongRopeOptions(longrope_long_factor=(1.0, 2.0)))


def test_which_schemes_follow_the_length_of_a_text() -> None:
    following = {name for name in SCHEMES if rotary.follows_length(_scaled(name, 2.0))}
    assert following == {"dynamic-ntk", "longrope"}
    alike = LongRopeOptions(longrope_short_factor=(3.0,) * 32, longrope_long_factor=(3.0,) * 32)
    assert not rotary.follows_length(_scaled("longrope", 3.0, alike))


def test_two_models_in_one_process_are_apart() -> None:
    plain, first, second = (
        AutoModelForCausalLM.from_config(c) for c in (_config(), _scaled("yarn", 2), _scaled("ntk", 8))
    )
    for network, name, factor in ((plain, None, 1.0), (first, "yarn", 2.0), (second, "ntk", 8.0)):
        used, _ = _angles(network, 100)
        wanted = _papers(factor, 100)[name][0] if name else _unscaled()
        torch.testing.assert_close(used, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


def test_dynamic_scaling_does_not_remember_a_longer_text() -> None:
    network = AutoModelForCausalLM.from_config(_scaled("dynamic-ntk", 2.0))
    rotary.judge_each_pass_alone(network)
    alone = _angles(network, 9000)[0]
    _angles(network, 16384)
    torch.testing.assert_close(_angles(network, 9000)[0], alone, rtol=0, atol=0)
    torch.testing.assert_close(_angles(network, LENGTH)[0], torch.tensor(_unscaled()), rtol=1e-5, atol=1e-6)


def test_partly_rotated_heads_and_layers_with_a_window() -> None:
    phi = PhiConfig(
        vocab_size=64, hidden_size=128, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(_scaled("ntk", 4.0, config=phi))
    rotary.check(network)
    assert network.config.rope_parameters["rope_theta"] == pytest.approx(10000 * 4 ** (32 / 30))
    gemma = Gemma3TextConfig(
        vocab_size=64, hidden_size=64, intermediate_size=32, num_hidden_layers=6, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1024,
    )  # fmt: skip
    local = dict(gemma.rope_parameters["sliding_attention"])
    network = AutoModelForCausalLM.from_config(_scaled("linear", 4.0, config=gemma))
    rotary.check(network)
    assert network.config.rope_parameters["sliding_attention"] == local
    assert network.config.rope_parameters["full_attention"]["factor"] == 4.0


def test_a_network_that_does_not_follow_its_configuration_is_noticed() -> None:
    network = AutoModelForCausalLM.from_config(_scaled("yarn", 2.0))
    network.model.rotary_emb.attention_scaling = 1.0
    with pytest.raises(ModelError, match="not those its configuration asks for"):
        rotary.check(network)
    network = AutoModelForCausalLM.from_config(_scaled("linear", 2.0))
    network.model.rotary_emb.inv_freq.mul_(1 + 1e-5)
    with pytest.raises(ModelError, match="not those its configuration asks for"):
        rotary.check(network)
    del network.model.rotary_emb
    with pytest.raises(ModelError, match="no rotary frequencies are found in LlamaForCausalLM"):
        rotary.check(network)


def test_what_cannot_be_scaled_is_refused() -> None:
    gpt2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2)
    with pytest.raises(RequestError, match="a gpt2 model has no rotary embeddings to scale"):
        _scaled("yarn", 2.0, config=gpt2)
    for first in ("yarn", "ntk"):
        with pytest.raises(RequestError, match=rf"--position-scaling linear: the model is scaled already \({first}, f"):
            _scaled("linear", 2.0, config=_scaled(first, 2.0))
    elsewhere = _config(rope_parameters={"rope_type": "linear", "rope_theta": THETA, "factor": 2.0})
    with pytest.raises(RequestError, match=r"scaled already \(linear\)"):
        _scaled("ntk", 2.0, config=elsewhere)


def _opened(folder: Path) -> CausalModel:
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.load()
    return model


def test_every_command_takes_it(tiny_model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    scaling = ("--position-scaling", "yarn", "--position-scaling-factor", 2)
    exported = lmflow_cli("export", "--model", tiny_model, "--output", tmp_path / "x", *scaling)
    assert exported.status == 0, exported.stderr
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "x").config.rope_parameters["rope_type"] == "yarn"
    prompt = ("--prompt", "the quick brown", "--raw", "--max-new-tokens", 4, "--json")
    ours = lmflow_cli("generate", "--model", tiny_model, *prompt, *scaling)
    theirs = lmflow_cli("generate", "--model", tmp_path / "x", *prompt)
    assert ours.json()["text"] == theirs.json()["text"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--position-scaling", "yarm", "--target-length", 512),
            "unknown position_scaling 'yarm'. Did you mean 'yarn'",
        ),
        (
            ("--position-scaling", "yarn", "--position-scaling-factor", 0.5),
            "0.5 is below the smallest value allowed, 1",
        ),
        (("--position-scaling", "yarn"), "needs one of --position-scaling-factor and --target-length"),
        (("--target-length", 512), "need --position-scaling NAME"),
        (("--position-scaling", "ntk", "--target-length", 128), "--target-length 128: the model reaches 256 tokens"),
        (("--rope_pi_ratio", 2, "--rope_ntk_ratio", 4), "--rope_pi_ratio and --rope_ntk_ratio exclude each other"),
        (("--position-scaling", "ntk", "--target-length", 512, "--yarn-beta-fast", 8), "add --position-scaling yarn"),
    ],
)
def test_wrong_requests_are_clear(
    flags: tuple[object, ...], message: str, tiny_model: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    result = lmflow_cli("export", "--model", tiny_model, "--output", tmp_path / "x", *flags)
    assert result.status == 2
    assert message in result.stderr
    assert not (tmp_path / "x").exists()


def test_a_model_without_rotary_embeddings_is_refused(tmp_path: Path, lmflow_cli: Cli) -> None:
    folder, tokenizer = tmp_path / "gpt2", make_tokenizer()
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    result = lmflow_cli(
        "export",
        "--model",
        folder,
        "--output",
        tmp_path / "x",
        "--position-scaling",
        "pi",
        "--position-scaling-factor",
        2,
    )
    assert result.status == 2
    assert "a gpt2 model has no rotary embeddings to scale" in result.stderr


def test_the_originals_flags(tiny_model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    for flag, kind in (("--rope_pi_ratio", "linear"), ("--rope_ntk_ratio", "default")):
        output = tmp_path / kind
        result = lmflow_cli("export", "--model", tiny_model, "--output", output, "--do_rope_scaling", "true", flag, 4)
        assert result.status == 0, result.stderr
        config = json.loads((output / "config.json").read_text())
        assert config["rope_parameters"]["rope_type"] == kind
        assert config["lmflow_position_scaling"]["factor"] == 4
    theta = config["rope_parameters"]["rope_theta"]
    assert theta == pytest.approx(10000 * 4 ** (8 / 6))


def test_a_third_party_adds_a_scheme_with_one_function(
    install_plugin: Any, tiny_model: Path, tmp_path: Path, lmflow_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(
        "halves",
        "import dataclasses\n"
        "from lmflow_core.api import PositionScalingSpec, hookimpl\n"
        "def halves(rope, factor, options):\n"
        "    changed = {**rope.parameters, 'rope_type': 'linear', 'factor': 2 * factor}\n"
        "    return dataclasses.replace(rope, parameters=changed)\n"
        "@hookimpl\n"
        "def lmflow_register_position_scalings():\n"
        "    return [PositionScalingSpec(name='halves', target='fake_lmflow_halves:halves', summary='Halves.')]\n",
    )
    result = lmflow_cli(
        "export", "--model", tiny_model, "--output", tmp_path / "x",
        "--position-scaling", "halves", "--position-scaling-factor", 3,
    )  # fmt: skip
    assert result.status == 0, result.stderr
    assert json.loads((tmp_path / "x" / "config.json").read_text())["rope_parameters"]["factor"] == 6.0


def test_scoring_sees_the_scaled_positions(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "m", max_position_embeddings=64, initializer_range=0.3)
    rows = [EncodedSequence(list(range(3, 99)), [IGNORE] * 64 + list(range(67, 99)))]
    plain = CausalModelLoader().open(str(folder), ModelSettings(model="m", device="cpu"))
    scaled = CausalModelLoader().open(str(folder), ModelSettings(model="m", device="cpu"))
    scaled.accept(replace(scaled.plan, positions=ScaledPositions("linear", schemes.linear, 2.0, None)))
    for model in (plain, scaled):
        model.load()
    theirs = AutoModelForCausalLM.from_pretrained(folder, config=scaled.config)
    with torch.no_grad():
        logits = theirs(torch.tensor([rows[0].input_ids])).logits[0, 63:-1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(rows[0].input_ids[64:]), reduction="sum")
    (score,), (other,) = scaled.score(rows), plain.score(rows)
    assert score.nll == pytest.approx(float(expected), rel=1e-5)
    assert score.correct == int((logits.argmax(-1) == torch.tensor(rows[0].input_ids[64:])).sum())
    assert other.nll != pytest.approx(score.nll, rel=1e-5)


@pytest.mark.parametrize("name", ["dynamic-ntk", "longrope"])
def test_a_texts_likelihood_does_not_depend_on_its_company(name: str, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "m", max_position_embeddings=64, initializer_range=0.3)
    model = CausalModelLoader().open(str(folder), ModelSettings(model="m", device="cpu"))
    model.accept(replace(model.plan, positions=ScaledPositions(name, SCHEMES[name], 4.0, None)))
    model.load()
    short, middle, long = (
        EncodedSequence(list(range(3, 3 + length)), list(range(3, 3 + length))) for length in (60, 80, 250)
    )
    alone = [next(iter(model.score([row]))) for row in (short, middle, long)]
    assert list(model.score([long, short, middle])) == [alone[2], alone[0], alone[1]]
