"""The images of some data: that what was encoded from them is not used when one has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from lmflow_core.contracts.examples import ImagePart
from lmflow_core.contracts.tokens import MediaTokenizer
from lmflow_core.files.atomic import write_text

# Size and time of change in ns; None for what is no file here.
_Stamp = tuple[int, int] | None
# Both answers of a preference show the same images.
_REPEATED = 64


class WatchedImages:
    """A media tokenizer that remembers which images it was asked for, and how their files were then."""

    def __init__(self, media: MediaTokenizer) -> None:
        """Watch what a media tokenizer is asked for."""
        self._media = media
        self._seen: dict[str, tuple[_Stamp, str]] = {}
        self._cached = lru_cache(maxsize=_REPEATED)(self._tokenized)

    @property
    def fingerprint(self) -> str:
        """That of the media tokenizer: other settings may give the same images other tokens."""
        return self._media.fingerprint

    @property
    def around(self) -> tuple[str, str]:
        """Those of the media tokenizer."""
        return self._media.around

    def tokenize(self, image: ImagePart) -> tuple[Sequence[int], str]:
        """Return the ids that stand for an image, and a digest of its bytes.

        Raises:
            ValueError: the image cannot be read.
        """
        return self._cached(image, _stamp(image.source))

    def _tokenized(self, image: ImagePart, stamp: _Stamp) -> tuple[Sequence[int], str]:
        # The stamp is older than what is read: a change between the two shows later.
        ids, digest = self._media.tokenize(image)
        self._seen[image.source] = (stamp, digest)
        return ids, digest

    def held(self, image: ImagePart) -> ImagePart:
        """As the media tokenizer does."""
        return self._media.held(image)

    @property
    def placeholder(self) -> str:
        """That of the media tokenizer."""
        return self._media.placeholder

    def save(self, file: Path) -> None:
        """Write what was seen, with each image's size, time and digest.

        Raises:
            OutputError: the disk refuses a write.
        """
        write_text(file, json.dumps(self._seen))

    def unchanged(self, file: Path) -> bool:
        """Whether every image that :meth:`save` wrote down still has the same bytes.

        An image whose file has the same size and time counts as the same; any other is read again.
        """
        try:
            seen = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return all(self._is_same(source, stamp, digest) for source, (stamp, digest) in seen.items())

    def _is_same(self, source: str, stamp: Sequence[int] | None, digest: str) -> bool:
        found = _stamp(source)
        if found is not None and stamp is not None and found == tuple(stamp):
            return True
        try:
            return self._media.tokenize(ImagePart(source))[1] == digest
        except ValueError:
            return False


def _stamp(source: str) -> _Stamp:
    try:
        found = Path(source).stat()
    except (OSError, ValueError):  # an address, or a name that no file can have
        return None
    return found.st_size, found.st_mtime_ns
