"""Flags: from the words of a command line to values, LMFlow's own names included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.cli.flags import Arguments, FlagParser, help_rows, with_run_file
from lmflow_core.cli.lmflow_flags import notes
from lmflow_core.cli.lmflow_names import SHORT, SWITCHES, TRANSLATED
from lmflow_core.config.schema import CHAT, EVALUATE, FINETUNE, GENERATE, Schema
from lmflow_core.contracts.attention import AttentionSpec
from lmflow_core.contracts.decoder import DecoderSpec
from lmflow_core.contracts.engine import EngineSpec
from lmflow_core.contracts.objective import ObjectiveSpec
from lmflow_core.contracts.optimizer import OptimizerSpec
from lmflow_core.contracts.spec import Spec
from lmflow_core.contracts.tuner import TunerSpec
from lmflow_core.errors import OptionError, UnknownNameError
from lmflow_core.options import option
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.registry import Catalogue


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    lora_r: int = option(8, help="Rank.", minimum=1)
    lora_dora: bool = option(False, help="DoRA.", aliases=("dora",))
    lora_target_modules: tuple[str, ...] = option(("q", "v"), help="Modules.")
    lora_plus_ratio: float | None = option(None, help="Ratio.")


@dataclass(frozen=True, kw_only=True)
class QloraOptions(LoraOptions):
    qlora_type: str = option("nf4", help="Form.", choices=("nf4", "fp4", "int8"))
    qlora_double_quantization: bool = option(True, help="Double.")


@dataclass(frozen=True, kw_only=True)
class GreedyOptions:
    """Options that would take the command's own, were they let."""

    resume: str = option("x", help="Not the command's.")
    greedy_x: int = option(0, help="X.", aliases=("output", "learning_rate", "lora_r"))


def _spec(spec_class: type[Spec], name: str, **more: Any) -> Spec:
    return spec_class(name=name, target=f"nowhere:{name.title()}", summary="A component.", **more)


CATALOGUE = Catalogue(
    PluginSet(
        (
            PluginRecord(
                "all",
                "lmflow-all",
                "1.0",
                specs=(
                    _spec(TunerSpec, "full"),
                    _spec(TunerSpec, "lora", options=LoraOptions),
                    _spec(TunerSpec, "qlora", options=QloraOptions),
                    _spec(TunerSpec, "greedy", options=GreedyOptions),
                    _spec(ObjectiveSpec, "sft", examples=("text",)),
                    _spec(AttentionSpec, "sdpa"),
                    _spec(OptimizerSpec, "adamw"),
                    _spec(EngineSpec, "local"),
                    _spec(DecoderSpec, "sampling"),
                ),
            ),
        )
    )
)


def _parse(*arguments: str, schema: Schema = FINETUNE) -> Arguments:
    return FlagParser(schema, CATALOGUE).parse(arguments)


def _values(*arguments: str, schema: Schema = FINETUNE) -> dict[str, object]:
    parsed = _parse(*arguments, schema=schema)
    assert parsed.positional == []
    assert parsed.switches == set()
    return parsed.values


def _refused(*arguments: str, schema: Schema = FINETUNE) -> str:
    with pytest.raises(OptionError) as raised:
        _parse(*arguments, schema=schema)
    return str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-steps", "3"),
        ("--max_steps", "3"),
        ("--max-steps=3",),
        ("--max_steps=3",),
        ("--max-steps", "1", "--max_steps=3"),
    ],
)
def test_dashes_underscores_and_the_equals_sign_are_the_same(arguments: tuple[str, ...]) -> None:
    assert _values(*arguments) == {"max_steps": "3"}


VALUES: list[tuple[tuple[str, ...], dict[str, object]]] = [
    (("--learning-rate", "1e-3"), {"lr": "1e-3"}),
    (("--lr", "-1"), {"lr": "-1"}),
    (("--output_dir", "a", "--model", "m"), {"output": "a", "model": "m"}),
    (("--model=a=b",), {"model": "a=b"}),
    (("--template=",), {"template": ""}),
    (("--device", "-x"), {"device": "-x"}),
    (("--lora-target-modules", "q,v"), {"lora_target_modules": "q,v"}),
]


@pytest.mark.parametrize(("arguments", "expected"), VALUES)
def test_values(arguments: tuple[str, ...], expected: dict[str, object]) -> None:
    assert _values(*arguments) == expected


def test_a_prompt_may_begin_with_a_dash() -> None:
    assert _values("--prompt", "-", schema=GENERATE) == {"prompt": "-"}
    assert _values("--prompt", "-- hello", schema=GENERATE) == {"prompt": "-- hello"}
    assert _values("--prompt=--hello", schema=GENERATE) == {"prompt": "--hello"}


TRUTHS: list[tuple[tuple[str, ...], dict[str, object]]] = [
    (("--resume",), {"resume": "true"}),
    (("--resume", "true"), {"resume": "true"}),
    (("--resume", "False"), {"resume": "False"}),
    (("--resume", "0", "--seed", "1"), {"resume": "0", "seed": "1"}),
    (("--resume=no",), {"resume": "no"}),
    (("--resume", "--seed", "1"), {"resume": "true", "seed": "1"}),
    (("--no-resume",), {"resume": False}),
    (("--resume", "--no_resume"), {"resume": False}),
    (("--no-overwrite-output-dir",), {"overwrite": False}),
    (("--no-dora",), {"lora_dora": False}),
    (("--dora",), {"lora_dora": "true"}),
]


@pytest.mark.parametrize(("arguments", "expected"), TRUTHS)
def test_truth_values(arguments: tuple[str, ...], expected: dict[str, object]) -> None:
    assert _values(*arguments) == expected


def test_a_truth_value_takes_no_other_word() -> None:
    parsed = _parse("--resume", "run.yaml", "--use_lora", "other.yaml")
    assert parsed.values == {"resume": "true", "tuner": "lora"}
    assert parsed.positional == ["run.yaml", "other.yaml"]


def test_several_values_stand_behind_one_another_where_no_run_file_may() -> None:
    parser = FlagParser(FINETUNE, CATALOGUE, run_file=False)
    parsed = parser.parse(["--dataset", "a.jsonl", "b,c", "--seed", "3"])
    assert parsed == Arguments(values={"dataset": "a.jsonl,b,c", "seed": "3"})


def test_switches_belong_to_the_command_line() -> None:
    parsed = FlagParser(FINETUNE, CATALOGUE, ("loud",)).parse(["--json", "-h", "--loud", "run.yaml"])
    assert parsed == Arguments(values={}, switches={"json", "help", "loud"}, positional=["run.yaml"])


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("--max-stps", "3"), "unknown option --max-stps of 'lmflow finetune'. Did you mean 'max_steps'?"),
    (("--learnin_rate", "3"), "unknown option --learnin-rate of 'lmflow finetune'. Did you mean 'learning_rate'?"),
    (
        ("--model_name_or_pth", "3"),
        "unknown option --model-name-or-pth of 'lmflow finetune'. Did you mean 'model_name_or_path'?",
    ),
    (("--xyzzy",), "unknown option --xyzzy of 'lmflow finetune'."),
    (("--no-xyzzy",), "unknown option --no-xyzzy of 'lmflow finetune'."),
    (("--no-max-steps",), "unknown option --no-max-steps of 'lmflow finetune'. Did you mean 'max_steps'?"),
    (("-x",), "unknown option -x of 'lmflow finetune'"),
    (("--",), "unknown option -- of 'lmflow finetune'"),
    (("--prompt", "hello"), "unknown option --prompt of 'lmflow finetune'."),
    (("--max-steps",), "--max-steps needs a value: Stop after this many optimizer steps."),
    (("--max-steps", "--resume"), "--max-steps needs a value: Stop after this many optimizer steps."),
    (("--model", "--resume"), "--model needs a value: Model: a registered name, a folder, a hub name or a GGUF file."),
    (("--json=false",), "--json takes no value"),
    (("--help=me",), "--help takes no value"),
    (("--no-resume=true",), "--no-resume takes no value"),
    (("--use_lora=maybe",), "--use_lora: expected true or false, got 'maybe'"),
    (("--model_name_or_path",), "--model_name_or_path needs a value"),
    (("--dataset_path", "--use_lora"), "--dataset_path needs a value"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_wrong_flags_are_refused(arguments: tuple[str, ...], message: str) -> None:
    assert _refused(*arguments) == message


def test_the_options_of_a_component_are_not_those_of_a_command_without_it() -> None:
    assert _refused("--lora-r", "4", schema=CHAT) == "unknown option --lora-r of 'lmflow chat'."


LMFLOW: list[tuple[tuple[str, ...], dict[str, object]]] = [
    (("--model_name_or_path", "m", "--dataset_path", "d"), {"model": "m", "dataset": "d"}),
    (("--model-name-or-path=m",), {"model": "m"}),
    (("--use_lora", "1"), {"tuner": "lora"}),
    (("--use_lora",), {"tuner": "lora"}),
    (("--use_lora", "0"), {}),
    (("--use_lora=False",), {}),
    (("--use_qlora", "true"), {"tuner": "qlora"}),
    (("--use_qlora", "1", "--quant_bit", "4"), {"tuner": "qlora"}),
    (("--use_qlora", "1", "--bits", "8"), {"tuner": "qlora", "qlora_type": "int8"}),
    (("--quantization_type", "nf4", "--quant_type", "nf4"), {"qlora_type": "nf4"}),
    (("--quant_type", "fp4", "--double_quant", "0"), {"qlora_type": "fp4", "qlora_double_quantization": False}),
    (("--double_quant", "true"), {"qlora_double_quantization": True}),
    (("--use_lisa", "1"), {"tuner": "lisa"}),
    (("--use_dora", "yes"), {"tuner": "lora", "lora_dora": True}),
    (("--use_flash_attention", "on"), {"attention": "flash"}),
    (("--bf16",), {"dtype": "bfloat16"}),
    (("--fp16", "--bf16", "0"), {"dtype": "float16"}),
    (("--block_size", "512"), {"max_length": "512", "length_policy": "truncate"}),
    (("--resume_from_checkpoint", "runs/a/checkpoint-3"), {"resume": True}),
    (("--resume_from_checkpoint", "false"), {}),
    (("--output_model_path", "a"), {"output": "a"}),
    (("--output_lora_path", "a"), {"output": "a"}),
    (("--lora_model_path", "a"), {"adapter": "a"}),
    (("--conversation_template", "chatml"), {"template": "chatml"}),
    (("--num_train_epochs", "2"), {"epochs": "2"}),
    (("--per_device_train_batch_size", "2"), {"batch_size": "2"}),
    (("--torch_dtype", "bfloat16"), {"dtype": "bfloat16"}),
    (("--overwrite_output_dir",), {"overwrite": "true"}),
    # What is said in LMFlow's words gives way to what is said in these, wherever it stands.
    (("--use_lora", "1", "--tuner", "full"), {"tuner": "full"}),
    (("--tuner", "full", "--use_lora", "1"), {"tuner": "full"}),
    (("--length-policy", "split", "--block_size", "512"), {"max_length": "512", "length_policy": "split"}),
]


@pytest.mark.parametrize(("arguments", "expected"), LMFLOW)
def test_lmflows_names_are_understood(arguments: tuple[str, ...], expected: dict[str, object]) -> None:
    assert _values(*arguments) == expected


IGNORED: dict[str, str] = notes()["ignored"]["*"]
NOT_HERE: list[tuple[str, str, str]] = [
    (command, name, replacement) for command, flags in notes()["refused"].items() for name, replacement in flags.items()
]


@pytest.mark.parametrize("name", IGNORED)
def test_lmflows_flags_without_effect_say_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _values(f"--{name}", "1", "--seed", "3") == {"seed": "3"}
    assert capsys.readouterr().err == f"lmflow: --{name} has no effect here: {IGNORED[name]}\n"
    assert _values(f"--{name}=x", f"--{name}") == {}


@pytest.mark.parametrize(("command", "name", "replacement"), NOT_HERE)
def test_lmflows_flags_without_a_place_name_what_takes_it(command: str, name: str, replacement: str) -> None:
    schema = {"*": FINETUNE, "chat": CHAT, "generate": GENERATE, "evaluate": EVALUATE}[command]
    assert _refused(f"--{name}", "1", schema=schema) == f"--{name} {replacement}"


VALUES_OF_LMFLOW: list[tuple[Schema, tuple[str, ...], dict[str, object] | str]] = [
    (FINETUNE, ("--arch_type", "decoder_only"), {}),
    (FINETUNE, ("--arch_type", "text_regression"), {"objective": "reward"}),
    (FINETUNE, ("--arch_type", "encoder_decoder"), "--arch_type encoder_decoder is not available yet; models that"),
    (FINETUNE, ("--optim", "paged_adamw_32bit"), {"optimizer": "adamw"}),
    (FINETUNE, ("--use_customized_optim", "1", "--customized_optim", "lamb"), {"optimizer": "lamb"}),
    (FINETUNE, ("--train_on_prompt", "true"), {"train_on": "all"}),
    (
        FINETUNE,
        ("-m", "m", "-d", "d", "-o", "o", "-r", "r"),
        {"model": "m", "dataset": "d", "output": "o", "run_name": "r"},
    ),
    (GENERATE, ("--do_sample", "false"), "--do_sample, here --temperature, is no option of 'lmflow generate'"),
    (GENERATE, ("--do_sample", "perhaps"), "--do_sample perhaps is neither true nor false"),
    (GENERATE, ("--apply_chat_template", "False"), {"raw": True}),
    (GENERATE, ("--use_beam_search", "True"), "--use_beam_search True is not available: answers are sampled"),
    (GENERATE, ("--inference_results_path", "a.jsonl", "--random_seed", "3"), {"output": "a.jsonl", "seed": "3"}),
    (CHAT, ("--use_lora", "1"), "--use_lora, here --tuner, is no option of 'lmflow chat'"),
    (CHAT, ("--gpu", "1"), {"device": "cuda:1"}),
    (EVALUATE, ("--metric", "ppl", "--random_seed", "1"), {}),
    # Without the plugin whose option it is.
    (
        EVALUATE,
        ("--metric", "accuracy"),
        "--metric accuracy is not available: it belongs to the benchmark lmflow, of the plugin lmflow-benchmarks",
    ),
    (EVALUATE, ("--answer_type", "text2text", "--dataset_name", "customized"), {}),
    (
        EVALUATE,
        ("--evaluate_block_size", "64", "--output_dir", "o"),
        {"stride": "64", "output_file": "o/evaluation.json"},
    ),
    (EVALUATE, ("--prompt_structure", "Input: {input}"), {"prompt_structure": "Input: {input}"}),
]


@pytest.mark.parametrize(("schema", "arguments", "expected"), VALUES_OF_LMFLOW)
def test_a_value_of_lmflows_flags_decides(
    schema: Schema, arguments: tuple[str, ...], expected: dict[str, object] | str
) -> None:
    if isinstance(expected, str):
        assert _refused(*arguments, schema=schema).startswith(expected)
    else:
        assert _values(*arguments, schema=schema) == expected


def test_lmflows_names_hide_no_option_and_stand_in_one_table() -> None:
    real = {f.name for settings in FINETUNE.settings for f in fields(settings)} | {"lora_dora"}
    tables = [set(SWITCHES), set(TRANSLATED), *(set(notes()[kind]["*"]) for kind in ("ignored", "refused"))]
    names = set().union(*tables)
    assert len(names) == sum(map(len, tables))
    assert names & real == set()
    assert {key for values in SWITCHES.values() for key in values} <= real
    assert all(long.removeprefix("--") in {*TRANSLATED, "output_dir", "run_name"} for long in SHORT.values())


def test_no_component_can_change_what_a_commands_own_flag_means() -> None:
    assert _values("--resume", "--output", "a", "--lr", "1") == {"resume": "true", "output": "a", "lr": "1"}
    assert _values("--learning-rate", "1", "--lora-r", "4") == {"lr": "1", "lora_r": "4"}
    assert _values("--greedy-x", "1") == {"greedy_x": "1"}


def _with_run_file(path: Path, text: str, *flags: str) -> dict[str, object]:
    path.write_text(text, encoding="utf-8")
    parser = FlagParser(FINETUNE, CATALOGUE)
    return with_run_file(parser.parse([str(path), *flags]), parser)


def test_flags_override_the_run_file(tmp_path: Path) -> None:
    text = "model: m\nlearning_rate: 1e-3\nmax-steps: 3\nlora_r: 4\noverwrite: true\n"
    flags = ("--max_steps", "5", "--no-overwrite", "--use_lora", "1")
    assert _with_run_file(tmp_path / "run.yaml", text, *flags) == {
        "model": "m",
        "lr": "1e-3",
        "max_steps": "5",
        "lora_r": 4,
        "overwrite": False,
        "tuner": "lora",
    }


def test_an_unknown_key_of_a_run_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    with pytest.raises(OptionError) as raised:
        _with_run_file(path, "model: m\nmax_stps: 3\n")
    assert str(raised.value) == f"{path}: unknown option --max-stps of 'lmflow finetune'. Did you mean 'max_steps'?"


def test_one_run_file_is_taken() -> None:
    parser = FlagParser(FINETUNE, CATALOGUE)
    with pytest.raises(OptionError, match=r"^unexpected argument 'b\.yaml'; one run file is taken$"):
        with_run_file(parser.parse(["a.yaml", "b.yaml"]), parser)
    assert with_run_file(parser.parse(["--seed", "1"]), parser) == {"seed": "1"}


def test_the_help_shows_the_options_of_what_is_chosen() -> None:
    plain = dict(help_rows(FINETUNE, {}, CATALOGUE))
    assert "--lora-r N" not in plain
    rows = dict(help_rows(FINETUNE, {"tuner": "lora"}, CATALOGUE))
    assert {flag: text for flag, text in rows.items() if flag not in plain} == {
        "--lora-r N": "Rank. [default: 8]",
        "--lora-dora": "DoRA. (also --dora)",
        "--lora-target-modules TEXT,…": "Modules. [default: q,v]",
        "--lora-plus-ratio X": "Ratio.",
    }
    assert rows["--weight-decay X"] == "Weight decay. [default: 0.0]"
    assert rows["--lr X"] == (
        "Peak learning rate; the optimizer's or the tuner's own when left out. (also --learning_rate)"
    )
    assert rows["--dataset PATH,…"] == "Data file, folder or hub name; several with commas. [required]"
    assert rows["--length-policy error|drop|truncate|split"].endswith(" [default: error]")
    with pytest.raises(UnknownNameError, match=r"^unknown tuner 'lorra'\. Did you mean 'lora'\?"):
        list(help_rows(FINETUNE, {"tuner": "lorra"}, CATALOGUE))


def test_help_is_shown_where_the_default_components_are_not_installed(
    lmflow_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMFLOW_PLUGINS", "")
    told = lmflow_cli("finetune", "--help")
    assert (told.status, "--tuner TEXT" in told.stdout) == (0, True), told.stderr
    assert "unknown tuner 'lora'" in lmflow_cli("finetune", "--tuner", "lora", "--help").stderr
