"""Distributions written by hand: for tests of how plugins are found, loaded and refused."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lmflow_core
from lmflow_core.plugins.installed import GROUP


@dataclass(frozen=True)
class Project:
    """A distribution of pure Python.

    Attributes:
        name: of the distribution.
        files: text of each module, by its path in ``site-packages``.
        plugins: the LMFlow plugins it declares, ``{name: module}``.
        version: of the distribution.
        requires: its ``Requires-Dist`` lines.
        metadata: further fields of its metadata, such as ``Summary``.
        description: its README.
    """

    name: str
    files: Mapping[str, str]
    plugins: Mapping[str, str] = field(default_factory=dict)
    version: str = "1.0"
    requires: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    @property
    def stem(self) -> str:
        """Name and version as file names hold them."""
        return f"{self.name.replace('-', '_')}-{self.version}"

    def unpack(self, site: Path) -> importlib.metadata.Distribution:
        """Put the distribution into a folder of packages, as an installer would."""
        for path, text in {**self.files, **self._metadata()}.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text, encoding="utf-8")
        return importlib.metadata.Distribution.at(site / f"{self.stem}.dist-info")

    def wheel(self, folder: Path) -> Path:
        """Write the distribution as a wheel into a folder."""
        files = {**self.files, **self._metadata()}
        rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
        record = f"{self.stem}.dist-info/RECORD"
        path = folder / f"{self.stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
            archive.writestr(record, "\n".join([*rows, f"{record},,", ""]))
        return path

    def _metadata(self) -> dict[str, str]:
        requires = [f"Requires-Dist: {requirement}" for requirement in self.requires]
        more = [f"{name}: {value}" for name, value in self.metadata.items()]
        metadata = ["Metadata-Version: 2.4", f"Name: {self.name}", f"Version: {self.version}", *requires, *more]
        metadata += ["", self.description] if self.description else []
        entries = [f"{name} = {module}" for name, module in self.plugins.items()]
        texts = {
            "METADATA": metadata,
            "WHEEL": ["Wheel-Version: 1.0", "Generator: lmflow", "Root-Is-Purelib: true", "Tag: py3-none-any"],
            "entry_points.txt": [f"[{GROUP}]", *entries],
        }
        return {f"{self.stem}.dist-info/{name}": "\n".join(lines) + "\n" for name, lines in texts.items()}


def core_range() -> str:
    """Return the range that plugins of this version of the core ask for, such as ``>=0.1,<0.2``."""
    major, minor = lmflow_core.__version__.split(".")[:2]
    return f">={major}.{minor},<{major}.{int(minor) + 1}"


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
