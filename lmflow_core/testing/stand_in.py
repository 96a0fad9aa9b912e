"""A tiny random model under the name of the real one, so that what documentation shows is run in seconds.

It has the real one's tokenizer, as templates, drafts and llama.cpp would refuse another or be refused by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmflow_core.testing.distributions import Project

NAME = "smollm2-135m-instruct"
# What offers the real model under this name; it must not load beside the stand-in.
REPLACED = "smollm2"
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,  # so many that a draft of a few layers is smaller
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_VERSIONS = ("lmflow-core>=0.1,<0.2", "lmflow-transformers>=0.1,<0.2")
_PLUGIN = f"""
from lmflow_core.api import ModelSpec, hookimpl

@hookimpl
def lmflow_register_models():
    yield ModelSpec(
        name={NAME!r},
        target="lmflow_stand_in.loader:StandIn",
        summary="A random model.",
        aliases=("smollm2",),
        template="smollm2",
    )
"""
_LOADER = """
from lmflow_transformers.api import CausalModelLoader

class StandIn:
    def open(self, reference, settings):
        model = CausalModelLoader().open({folder!r}, settings)
        model.reference = {name!r}
        return model
"""


def install_stand_in(site: Path, real: Path) -> None:
    """Put a distribution that offers the model into a folder of packages, and the model beside its code.

    Args:
        site: the folder of packages.
        real: folder of the real model, whose tokenizer is taken.
    """
    package = site / "lmflow_stand_in"
    files = {
        "lmflow_stand_in/__init__.py": "",
        "lmflow_stand_in/plugin.py": _PLUGIN,
        "lmflow_stand_in/loader.py": _LOADER.format(folder=str(package / "model"), name=NAME),
    }
    Project("lmflow-stand-in", files, {"stand-in": "lmflow_stand_in.plugin"}, "0.1.0", _VERSIONS).unpack(site)
    _make_model(real, package / "model")


def _make_model(real: Path, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(real)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        **_SHAPE,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
