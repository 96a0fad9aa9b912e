"""Renders conversations with models' official chat templates and with those of lmflow-templates, and writes a table.

``python dev/official_templates.py --templates FOLDER --trl`` compares with the files of a folder, that of llama.cpp's
``models/templates``, and with those of an installed TRL, and writes ``docs/templates-beside-official.md``. The rows of
a source that is left out stay as they are. Which file belongs to which template, and the reasons for what differs,
stand in ``official_templates.yaml``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from official_comparison import DATA, Reference, compare, reasons, recognised, references
from official_conversations import CASES

PAGE = Path(__file__).parents[1] / "docs" / "templates-beside-official.md"
LLAMA_CPP, TRL = "llama.cpp", "TRL"
UNEXPLAINED = "**not known**"

_HEAD = f"""# Templates beside the official ones

`python dev/official_templates.py --templates FOLDER --trl` renders {len(CASES)} conversations with the chat templates
that models were published with and with ours, and writes this page. The files are those of llama.cpp's
`models/templates`, as llama-cpp-python 0.3.36 brings them, and those of TRL; they are not part of LMFlow.

*Compared* are the conversations that both render: a template may refuse tools, a system prompt or an order of turns.
*Found* tells whether a model with the official file is taken to talk in ours, without `--template`; where it is not,
the model's own template is used as it is. "It" is the official file, and the number behind a reason is that of the
conversations it explains.

| template | official file | of | compared | equal | found | what differs, and why |
|---|---|---|---|---|---|---|
"""


def folder_of_trl() -> Path | None:
    """Return where TRL keeps chat templates; None where it is not installed."""
    found = importlib.util.find_spec("trl")
    folder = Path(found.origin).parent / "chat_templates" if found and found.origin else None
    return folder if folder is not None and folder.is_dir() else None


def rows(source: str, folder: Path) -> dict[tuple[str, str], str]:
    """Return the rows of a source by source and file; its files stand in the folder."""
    return {
        (source, reference.file): _row(reference, (folder / reference.file).read_text(encoding="utf-8"))
        for reference in references()
        if reference.source == source
    }


def _row(reference: Reference, official: str) -> str:
    compared = compare(reference, official)
    equal = sum(theirs == mine for theirs, mine in compared.values())
    told = [f"{_reason(name)} ({len(cases)})" for name, cases in reasons(reference, compared).items()]
    if reference.undone:
        told.insert(0, f"compared without an edit of {reference.source}'s, which the model's card does not have")
    found = "yes" if recognised(reference, official) == [reference.template] else "no"
    cells = (f"`{reference.template}`", f"`{reference.file}`", reference.source, len(compared), equal, found)
    return f"| {' | '.join(map(str, cells))} | {'; '.join(told)} |"


def _reason(name: str) -> str:
    return DATA["reasons"][name] if name else UNEXPLAINED


def written_rows() -> dict[tuple[str, str], str]:
    """Return the rows of the page as it is, by source and file."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    cells = {line: [cell.strip(" `") for cell in line.split("|")] for line in lines if line.startswith("| `")}
    return {(cell[3], cell[2]): line for line, cell in cells.items()}


def page(found: Mapping[tuple[str, str], str]) -> str:
    """Return the page with the given rows, in the order of the data."""
    lines = [found[reference.source, reference.file] for reference in references()]
    parts = [
        _HEAD + "\n".join(lines),
        "## Official files that are not compared",
        *(
            f"* {reason} ({source}): {_listed(files)}."
            for source, by_reason in DATA["not_compared"].items()
            for reason, files in by_reason.items()
        ),
        "## Templates that are compared with no file",
        *(f"* {reason}: {_listed(names)}." for reason, names in DATA["without_reference"].items()),
        "## What has no template",
        *(f"* {what}: {reason}." for what, reason in DATA["missing"].items()),
    ]
    return "\n\n".join(parts).replace(".\n\n* ", ".\n* ") + "\n"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _show(folder: Path, name: str) -> None:
    for reference in references():
        if reference.file == name and (folder / name).is_file():
            for case, (theirs, mine) in compare(reference, (folder / name).read_text(encoding="utf-8")).items():
                if theirs != mine:
                    print(f"{case}\n  official {theirs!r}\n  ours     {mine!r}")


def main() -> int:
    """Compare, and write the page or show what differs; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=Path, help="the folder of llama.cpp's templates")
    parser.add_argument("--trl", action="store_true", help="compare with TRL's as well")
    parser.add_argument("--show", metavar="FILE", help="print what differs from this file, and write nothing")
    arguments = parser.parse_args()
    folders = {LLAMA_CPP: arguments.templates, TRL: folder_of_trl() if arguments.trl else None}
    found = written_rows()
    for source, folder in folders.items():
        if folder is not None and arguments.show:
            _show(folder, arguments.show)
        elif folder is not None:
            found |= rows(source, folder)
    if arguments.show:
        return 0
    PAGE.write_text(page(found), encoding="utf-8")
    unknown = [line for line in found.values() if UNEXPLAINED in line]
    print("\n".join(unknown) or f"{PAGE.name}: every difference has a reason")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
