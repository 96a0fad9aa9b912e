"""What a model's files hold, told from samples: weights are too large to be read as a whole for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
_CONFIGURATIONS = ("config.json", "adapter_config.json")
_SAMPLES, _BYTES = 64, 4096


def model_fingerprint(path: Path) -> str:
    """Return a digest of a weights file, or of the weights and configurations in a folder.

    Of each file it covers name, size, and samples spread evenly over it. Trained weights differ in most places from
    those they were, so that samples tell; a change of a few bytes on purpose may go unseen.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(_files(path)):
        size = file.stat().st_size
        digest.update(f"{file.name}\n{size}\n".encode())
        with file.open("rb") as stream:
            for number in range(_SAMPLES):
                stream.seek(max(0, size - _BYTES) * number // (_SAMPLES - 1))
                digest.update(stream.read(_BYTES))
    return digest.hexdigest()[:16]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        files = (file for file in path.iterdir() if file.is_file())
        yield from (file for file in files if file.suffix in _WEIGHTS or file.name in _CONFIGURATIONS)
