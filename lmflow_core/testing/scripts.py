"""Scripts as modules, for tests of what they are made of."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_script(file: Path) -> ModuleType:
    """Return a script as a module of the name of its file, with modules beside it within its reach while it loads."""
    specification = importlib.util.spec_from_file_location(f"{file.stem}_script", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # A dataclass looks up the module it is defined in.
    sys.modules[specification.name] = module
    sys.path.insert(0, str(file.parent))
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module
