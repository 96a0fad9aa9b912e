"""llama.cpp sees with our files what the model sees: the same tokens, and the same logits behind an image."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama.cpp's binding is optional")
pytest.importorskip("lmflow_multimodal", reason="models that see are opened by a plugin of their own")

import torch
from PIL import Image

from lmflow_core.api import EncodedExample, ImagePart, ModelSettings, Segment
from lmflow_core.data.encoding import Encoder
from lmflow_gguf.export import GgufExporter
from lmflow_gguf.model import LlamaCppLoader
from lmflow_gguf.options import GgufOptions
from lmflow_gguf.runtime import Weights, library, part
from lmflow_multimodal.loader import ImageTextLoader
from lmflow_transformers.api import collate

# Widths and heights: tiles are cut of any, the Qwens take those that patches fill.
FAMILIES = {
    "idefics3": (100, 70),
    "smolvlm": (64, 32),
    "qwen2_vl": (112, 168),
    "qwen2_5_vl": (168, 224),
}
# llama.cpp computes GELU from a table of 16 bits; another image moves the logits by a hundred times as much.
_TOLERANCE = 1e-3
_IMAGE = -1


def _picture(seed: int, size: tuple[int, int], folder: Path) -> Path:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    path = folder / f"{seed}.png"
    Image.fromarray(pixels).save(path)
    return path


def _expected(folder: Path, picture: Path) -> tuple[list[int], np.ndarray]:
    """Return the tokens, with one number for those of images, and the last logits of the model itself."""
    model = ImageTextLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu", dtype="float32"))
    model.load()
    segments = [Segment("Hello "), Segment("", image=ImagePart(str(picture))), Segment(" The dog")]
    (row,) = Encoder(model.tokenizer, None, media=model.media).encode_segments([segments])
    inputs = collate([EncodedExample((row,))], isolated=False, media_inputs=model.media_inputs).inputs[0]
    with torch.no_grad():
        logits = model.base(use_cache=False, **inputs).logits[0, -1].numpy()
    return [_IMAGE if token in model.media_ids else token for token in row.input_ids], logits


@contextmanager
def _context(weights: Weights, eyes: Path) -> Iterator[tuple[Any, Any]]:
    lib, sight = library(), part("mtmd_cpp")
    settings = lib.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 256
    settings.n_threads = settings.n_threads_batch = 1
    context = lib.llama_init_from_model(weights.handle, settings)
    of_sight = sight.mtmd_context_params_default()
    of_sight.use_gpu = of_sight.warmup = of_sight.print_timings = False
    of_sight.n_threads = 1
    seeing = sight.mtmd_init_from_file(os.fsencode(eyes), weights.handle, of_sight)
    assert seeing
    yield context, seeing
    sight.mtmd_free(seeing)
    lib.llama_free(context)


def _found(text: Path, eyes: Path, picture: Path, prompt: str) -> tuple[list[int], np.ndarray]:
    """Return what :func:`_expected` does, from llama.cpp."""
    lib, sight, weights = library(), part("mtmd_cpp"), Weights(text)
    with _context(weights, eyes) as (context, seeing):
        chunks = _chunks(seeing, picture, prompt)
        ids = [token for number in range(sight.mtmd_input_chunks_size(chunks)) for token in _tokens(chunks, number)]
        behind = lib.llama_pos()
        assert not sight.mtmd_helper_eval_chunks(seeing, context, chunks, 0, 0, 256, True, ctypes.byref(behind))
        logits = ctypes.cast(lib.llama_get_logits_ith(context, -1), ctypes.POINTER(ctypes.c_float))
        values = np.ctypeslib.as_array(logits, (weights.size,)).copy()
        sight.mtmd_input_chunks_free(chunks)
    return ids, values


def _chunks(seeing: Any, picture: Path, prompt: str) -> Any:
    sight = part("mtmd_cpp")
    raw = prompt.replace("<picture>", sight.mtmd_default_marker().decode()).encode()
    text = sight.mtmd_input_text(text=raw, text_len=len(raw), add_special=False, parse_special=True)
    image = Image.open(picture)
    pixels = (ctypes.c_uint8 * (3 * image.width * image.height)).from_buffer_copy(image.tobytes())
    bitmap = sight.mtmd_bitmap_init(image.width, image.height, pixels)
    chunks = sight.mtmd_input_chunks_init()
    images = (sight.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert not sight.mtmd_tokenize(seeing, chunks, ctypes.byref(text), images, 1)
    sight.mtmd_bitmap_free(bitmap)
    return chunks


def _tokens(chunks: Any, number: int) -> list[int]:
    sight = part("mtmd_cpp")
    chunk = sight.mtmd_input_chunks_get(chunks, number)
    count = sight.mtmd_input_chunk_get_n_tokens(chunk)
    if sight.mtmd_input_chunk_get_type(chunk) != sight.MTMD_INPUT_CHUNK_TYPE_TEXT:
        return [_IMAGE] * count
    return list(sight.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(ctypes.c_size_t()))[:count])


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_sees_what_the_model_sees(family: str, seeing_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, written = seeing_folder(family), tmp_path / "written"
    written.mkdir()
    model = ImageTextLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    GgufExporter(GgufOptions(type=("F32",), pre_tokenizer="gpt-2")).export(model, written, None)
    text, eyes = written / f"{family}-F32.gguf", written / f"mmproj-{family}-F32.gguf"
    picture, other = (_picture(seed, FAMILIES[family], tmp_path) for seed in (1, 2))
    prompt = "Hello <picture> The dog"
    ids, logits = _found(text, eyes, picture, prompt)
    expected_ids, expected = _expected(folder, picture)
    assert ids == expected_ids
    assert np.abs(logits - expected).max() < _TOLERANCE
    assert logits.argmax() == expected.argmax()
    assert np.abs(_found(text, eyes, other, prompt)[1] - logits).max() > 10 * _TOLERANCE


def test_the_text_alone_is_a_model_like_any_other(seeing_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = seeing_folder("idefics3")
    model = ImageTextLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu", dtype="float32"))
    options = GgufOptions(type=("F32",), pre_tokenizer="gpt-2", verify=True)
    report = GgufExporter(options).export(model, tmp_path, None)
    assert set(report.files) == {"idefics3-F32.gguf", "mmproj-idefics3-F32.gguf"}
    file = tmp_path / "idefics3-F32.gguf"
    assert LlamaCppLoader().open(str(file), ModelSettings(model=str(file))).media is None
