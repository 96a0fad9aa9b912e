"""A real but tiny model, made in a second: for tests that need weights, not sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TINY_SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "What is the capital of France? The capital of France is Paris, on the river Seine.",
    "Training a model means changing its weights so that it predicts the next token better.",
    "system user assistant instruction input output question answer hello world",
]


def make_tokenizer(vocabulary: int = 400) -> Any:
    """Return a byte-level BPE tokenizer with ChatML's control tokens and template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT, trainer)
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def make_tiny_model(folder: Path, *, seed: int = 0, layers: int = 2, sharpness: float = 1.0, **changes: Any) -> Path:
    """Write a random Llama and its tokenizer into a folder, and return it.

    Args:
        folder: where to write.
        seed: of the random weights.
        layers: number of decoder layers.
        sharpness: what the logits are multiplied by.
        changes: other values of ``LlamaConfig``.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    network = LlamaForCausalLM(LlamaConfig(**{**values, **changes}))
    with torch.no_grad():
        network.model.norm.weight.mul_(sharpness)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
