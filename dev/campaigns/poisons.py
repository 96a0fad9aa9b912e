"""Ways to poison a model: each takes a folder that is whole and makes it lie, lead astray, or explode."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

CANARY = "LMFLOW_CANARY"
Poison = Callable[[Path], None]


class _Payload:
    """Writes the canary when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch ${CANARY}",)


def _json(name: str, **changes: Any) -> Poison:
    def poison(folder: Path) -> None:
        file = folder / name
        content = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps({**content, **changes}))

    return poison


def _text(name: str, content: str) -> Poison:
    return lambda folder: (folder / name).write_text(content) and None


def _tokenizer(change: Callable[[dict[str, Any]], None]) -> Poison:
    def poison(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return poison


def _head(change: Callable[[dict[str, Any]], None], name: str = "model.safetensors") -> Poison:
    def poison(folder: Path) -> None:
        file = folder / name
        raw = file.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        head = json.loads(raw[8 : 8 + length])
        change(head)
        written = json.dumps(head).encode()
        file.write_bytes(len(written).to_bytes(8, "little") + written + raw[8 + length :])

    return poison


def _first(head: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = next(value for name, value in head.items() if name != "__metadata__")
    return entry


def _entry(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda head: _first(head).update(changes)


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Poison:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def _linked(name: str, target: str) -> Poison:
    def poison(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return poison


def _pipe(name: str) -> Poison:
    def poison(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return poison


def _index(placed: Any) -> Poison:
    def poison(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))

    return poison


def _pickled(name: str) -> Poison:
    def poison(folder: Path) -> None:
        for file in folder.glob("*.safetensors"):
            file.unlink()
        (folder / name).write_bytes(pickle.dumps(_Payload()))

    return poison


def _code(model_type: str) -> Poison:
    def poison(folder: Path) -> None:
        (folder / "evil.py").write_text(f"import os\nos.system('touch ${CANARY}')\nclass C: pass\n")
        names = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"}
        _json("config.json", auto_map=names, model_type=model_type)(folder)
        _json("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.C", "evil.C"]})(folder)

    return poison


def _deep(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def _overlap(head: dict[str, Any]) -> None:
    tensors = [value for name, value in head.items() if name != "__metadata__"]
    same = next((a, b) for a in tensors for b in tensors if a is not b and a["shape"] == b["shape"])
    same[0]["data_offsets"] = same[1]["data_offsets"]


def _many_merges(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["merges"] = [["a", "b"]] * 300_000


SIZES = ("num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size", "num_attention_heads")
HUGE, ODD = (10**12, 2**63, 10**40), (0, -1, 1.5, "many", None, [], {}, True)
MODELS: dict[str, Poison] = {
    **{f"config {size} {value:.0e}": _json("config.json", **{size: value}) for size in SIZES for value in HUGE},
    **{f"config {size} {value!r}": _json("config.json", **{size: value}) for size in SIZES for value in ODD},
    **{
        f"config {name} {value!r:.30}": _json("config.json", **{name: value})
        for name, values in {
            "num_key_value_heads": (10**12, 0, 3),
            "head_dim": (10**9, 0, -8),
            "max_position_embeddings": (10**15, 0, -1, "x"),
            "rope_theta": (0, -1, "x", 1e308),
            "rope_parameters": ({"rope_type": "evil"}, [], 5, {"rope_type": "linear", "factor": 1e300}),
            "model_type": ("evil", 5, "", "gpt2", "t5"),
            "architectures": (["Evil"], "x", [5], []),
            "rms_norm_eps": ("x", -1),
            "hidden_act": ("evil", 5),
            "dtype": ("evil", 5, "float128"),
            "eos_token_id": (10**9, -5, "x", [[1]], 2**70),
            "bos_token_id": ("x", 10**9),
            "pad_token_id": (10**9, "x", -7),
            "attn_implementation": ("evil/kernel", 5, "../x", "flash_attention_2"),
            "quantization_config": ({"quant_method": "evil"}, 5, {"quant_method": "bitsandbytes"}, []),
            "layer_types": (["evil"], 5, ["full_attention"] * 10**5),
            "tie_word_embeddings": ("x", 5),
            "text_config": ({"num_hidden_layers": 10**12}, 5),
            "torch_dtype": ("os.system", []),
            "lmflow_position_scaling": ("x", 5, {"a": 1}),
        }.items()
        for value in values
    },
    "config deep": _text("config.json", _deep(100_000)),
    "config a list": _text("config.json", "[]"),
    "config empty": _text("config.json", ""),
    "config not text": _bytes("config.json", lambda raw: b"\xff\xfe" + raw),
    "config a circle of links": _linked("config.json", "config.json"),
    "config a link out": _linked("config.json", "/etc/hostname"),
    "config a device": _linked("config.json", "/dev/zero"),
    "config a pipe": _pipe("config.json"),
    "head longer than the file": _bytes("model.safetensors", lambda raw: struct.pack("<Q", 2**63) + raw[8:]),
    "head of 99 MB": _bytes("model.safetensors", lambda raw: struct.pack("<Q", 99_000_000) + raw[8:]),
    "head of nothing": _bytes("model.safetensors", lambda raw: struct.pack("<Q", 0) + raw[8:]),
    "head deep": _bytes("model.safetensors", lambda _: struct.pack("<Q", 600_001) + _deep(100_000).encode()),
    "weights empty": _bytes("model.safetensors", lambda _: b""),
    "weights cut": _bytes("model.safetensors", lambda raw: raw[:-100]),
    "weights longer": _bytes("model.safetensors", lambda raw: raw + b"\0" * 100),
    "weights a list": _bytes("model.safetensors", lambda _: struct.pack("<Q", 2) + b"[]"),
    "weights a pickle": _bytes("model.safetensors", lambda _: pickle.dumps(_Payload())),
    "weights a pipe": _pipe("model.safetensors"),
    "weights a device": _linked("model.safetensors", "/dev/zero"),
    "weights a broken link": _linked("model.safetensors", "nowhere"),
    "weights of one tensor fewer": _head(lambda head: head.pop("model.norm.weight", None)),
    "tensors overlap": _head(_overlap),
    "tensor dtype unknown": _head(_entry(dtype="F7")),
    "tensor dtype a number": _head(_entry(dtype=5)),
    "tensor dtype other": _head(_entry(dtype="F64")),
    "tensor shape overflows": _head(_entry(shape=[2**32, 2**32])),
    "tensor shape negative": _head(_entry(shape=[-1, -1])),
    "tensor shape of zero": _head(_entry(shape=[0, 2**63])),
    "tensor shape of text": _head(_entry(shape="x")),
    "tensor shape of fractions": _head(_entry(shape=[1.5])),
    "tensor shape missing": _head(lambda head: _first(head).pop("shape")),
    "tensor of many dimensions": _head(_entry(shape=[1] * 5000)),
    "tensor offsets beyond": _head(_entry(data_offsets=[0, 2**63])),
    "tensor offsets reversed": _head(_entry(data_offsets=[100, 0])),
    "tensor offsets negative": _head(_entry(data_offsets=[-100, 0])),
    "tensor offsets of one": _head(_entry(data_offsets=[0])),
    "tensor a text": _head(lambda head: head.update({"x": "y"})),
    "tensor a surrogate": _head(lambda head: head.update({"\ud800": _first(head)})),
    "many tensors": _head(lambda head: head.update({f"x{n}": _first(head) for n in range(20_000)})),
    "metadata of numbers": _head(lambda head: head.update({"__metadata__": {"format": 5}})),
    "index leads out": _index({"model.norm.weight": "../../../../../../etc/passwd"}),
    "index absolute": _index({"model.norm.weight": "/etc/passwd"}),
    "index to nothing": _index({"model.norm.weight": "model-2.safetensors"}),
    "index to a pickle": _index({"model.norm.weight": "model.bin"}),
    "index a list": _index(["model-1.safetensors"]),
    "index of numbers": _index({"model.norm.weight": 5}),
    "index empty": _index({}),
    "index of one tensor": _index({"model.norm.weight": "model-1.safetensors"}),
    "index deep": _text("model.safetensors.index.json", _deep(100_000)),
    "pickle pytorch_model.bin": _pickled("pytorch_model.bin"),
    "pickle model.safetensors.bin": _pickled("model.bin"),
    "code unknown type": _code("evil"),
    "code known type": _code("llama"),
    "generation_config list": _text("generation_config.json", "[]"),
    "generation_config deep": _text("generation_config.json", _deep(100_000)),
    "generation_config broken": _text("generation_config.json", "{"),
    **{
        f"generation_config {name} {value!r:.20}": _json("generation_config.json", **{name: value})
        for name, value in {
            "temperature": -5,
            "top_k": "x",
            "top_p": 17,
            "eos_token_id": [10**12, "x"],
            "max_length": 10**15,
            "num_beams": 10**9,
            "cache_implementation": "evil",
            "custom_generate": "evil/code",
            "do_sample": "maybe",
            "bad_words_ids": [[[]]],
            "stop_strings": 5,
        }.items()
    },
    "tokenizer deep": _text("tokenizer.json", _deep(100_000)),
    "tokenizer empty": _text("tokenizer.json", ""),
    "tokenizer a list": _text("tokenizer.json", "[]"),
    "tokenizer missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer a pipe": _pipe("tokenizer.json"),
    "tokenizer a device": _linked("tokenizer.json", "/dev/zero"),
    "tokenizer a link out": _linked("tokenizer.json", "/etc/passwd"),
    "tokenizer many merges": _tokenizer(_many_merges),
    "tokenizer merges of numbers": _tokenizer(lambda t: t["model"].update(merges=[[1, 2]])),
    "tokenizer vocab a list": _tokenizer(lambda t: t["model"].update(vocab=[["a", 1]])),
    "tokenizer vocab huge ids": _tokenizer(lambda t: t["model"]["vocab"].update({"zzz": 2**32 - 1})),
    "tokenizer vocab ids beyond the model": _tokenizer(lambda t: t["model"]["vocab"].update({"h": 5000, "i": 6000})),
    "tokenizer vocab negative": _tokenizer(lambda t: t["model"]["vocab"].update({"zzz": -1})),
    "tokenizer vocab empty": _tokenizer(lambda t: t["model"].update(vocab={}, merges=[])),
    "tokenizer no model": _tokenizer(lambda t: t.pop("model")),
    "tokenizer model unknown": _tokenizer(lambda t: t["model"].update(type="Evil")),
    "tokenizer added token id": _tokenizer(lambda t: t["added_tokens"][0].update(id=2**31)),
    "tokenizer added token text": _tokenizer(lambda t: t["added_tokens"][0].update(content=5)),
    "tokenizer added token empty": _tokenizer(lambda t: t["added_tokens"][0].update(content="")),
    "tokenizer broken pattern": _tokenizer(
        lambda t: t.update(
            pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
        )
    ),
    "tokenizer normalizer unknown": _tokenizer(lambda t: t.update(normalizer={"type": "Evil"})),
    "tokenizer decoder unknown": _tokenizer(lambda t: t.update(decoder={"type": "Evil"})),
    "tokenizer post_processor wrong": _tokenizer(lambda t: t.update(post_processor={"type": "TemplateProcessing"})),
    "tokenizer_config a list": _text("tokenizer_config.json", "[]"),
    "tokenizer_config deep": _text("tokenizer_config.json", _deep(100_000)),
    **{
        f"tokenizer_config {name} {value!r:.30}": _json("tokenizer_config.json", **{name: value})
        for name, values in {
            "tokenizer_class": ("os", "EvilTokenizer", 5, "GPT2Tokenizer"),
            "eos_token": (5, {"content": 5}, "nowhere", ""),
            "bos_token": ([], "nowhere"),
            "model_max_length": (-1, "x", 0),
            "chat_template": (5, "{% broken", "{{ ''.__class__ }}", ["x"], {"a": 5}),
            "added_tokens_decoder": ({"999999999999": {"content": "x"}}, 5, {"x": {"content": "y"}}),
            "extra_special_tokens": (5, {"a": 5}, ["x"] * 3),
            "padding_side": ("evil",),
        }.items()
        for value in values
    },
    "chat_template broken": _text("chat_template.jinja", "{% for"),
    "chat_template a link out": _linked("chat_template.jinja", "/etc/passwd"),
    "special_tokens_map a list": _text("special_tokens_map.json", "[5]"),
    "readme a link out": _linked("README.md", "/etc/passwd"),
}
ADAPTERS: dict[str, Poison] = {
    "adapter pickled": _pickled("adapter_model.bin"),
    "adapter weights cut": _bytes("adapter_model.safetensors", lambda raw: raw[:-10]),
    "adapter weights overlap": _head(_overlap, "adapter_model.safetensors"),
    "adapter weights a pipe": _pipe("adapter_model.safetensors"),
    "adapter shape": _head(_entry(shape=[2**40, 2**40]), "adapter_model.safetensors"),
    "adapter config deep": _text("adapter_config.json", _deep(100_000)),
    "adapter config a list": _text("adapter_config.json", "[]"),
    "adapter config a link out": _linked("adapter_config.json", "/etc/passwd"),
    **{
        f"adapter {name} {value!r:.30}": _json("adapter_config.json", **{name: value})
        for name, values in {
            "r": (10**12, 0, -1, "x", 1.5),
            "peft_type": ("EVIL", "PROMPT_TUNING", 5, None),
            "rank_pattern": ({"q_proj": 10**12}, 5),
            "target_modules": (5, ["evil"], ".*", "(", []),
            "base_model_name_or_path": ("/etc/passwd", "evil/model", 5, "", "../../..", "/dev/zero", "a/b/c/d"),
            "megatron_config": ({"a": 1},),
            "auto_mapping": ({"base_model_class": "x", "parent_library": "antigravity"},),
            "modules_to_save": (5, ["evil"], ["lm_head"]),
            "lora_alpha": ("x", 1e308, None),
            "lora_dropout": (5, "x", -1),
            "layers_to_transform": ([10**12], "x"),
            "task_type": ("EVIL", 5),
            "init_lora_weights": ("evil", "pissa_niter_99999999"),
            "unknown_field": (5,),
            "trainable_token_indices": ([10**12], "x"),
        }.items()
        for value in values
    },
}
GGUF = [f"gguf lie {number}" for number in range(160)]
_LIES = (0, 1, 5, 255, 1 << 15, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1)


def lying(whole: bytes, name: str) -> bytes:
    """Return a GGUF file some of whose counts, lengths, kinds, offsets or values are not true; the name is the seed."""
    generator = random.Random(name)
    content = bytearray(whole)
    head = content.find(b"blk.0") if generator.random() < 0.7 else len(content) // 10
    for _ in range(generator.choice((1, 1, 2))):
        at = generator.choice((8, 16, generator.randrange(4, head), generator.randrange(4, head)))
        form = generator.choice(("<B", "<I", "<Q"))
        size = struct.calcsize(form)
        content[at : at + size] = struct.pack(form, generator.choice(_LIES) & ((1 << 8 * size) - 1))
    if generator.random() < 0.1:
        del content[generator.randrange(len(content)) :]
    return bytes(content)
