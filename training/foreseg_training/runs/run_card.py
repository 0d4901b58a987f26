# SPDX-License-Identifier: Apache-2.0
"""The card of a run, beside its model: what was trained on what, by which code, and how it went.

`run_card.json` for programs, `RUN_CARD.md` for people; both say what is not known. Does not know:
models, trainers.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .whole_file import write_whole

JSON_CARD, TEXT_CARD = "run_card.json", "RUN_CARD.md"
UNKNOWN = "unknown"
_PACKAGES = ("foreseg", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")
_LICENCES = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENCE.txt", "LICENSE.md", "license.txt")
_END_BYTES = 1 << 16

Card = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Where episodes came from."""

    root: Path
    form: str
    split: str

    def record(self) -> Card:
        """As the card has it."""
        return {
            "root": str(self.root.resolve()),
            "form": self.form,
            "split": self.split,
            "licence": licence_of(self.root),
        }


def licence_of(root: Path) -> str:
    """What a dataset says of its licence: the first line of its licence file; else "unknown"."""
    for name in _LICENCES:
        path = root / name
        if path.is_file():
            with path.open("rb") as file:
                lines = file.read(4096).decode("utf-8", "replace").splitlines()
            first = next((line.strip(" #\t") for line in lines if line.strip(" #\t")), "")
            return f"{first} ({name})" if first else UNKNOWN
    return UNKNOWN


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """A hash of what is trained on: ids, words and truths of all rows in order; no pixels.

    Args:
        rows: without their images.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:16]


def weights_digest(folder: Path) -> str:
    """A cheap hash of a model's folder: its configuration, and names, sizes and ends of its weights."""
    digest = hashlib.sha256()
    for path in sorted({*folder.rglob("*.safetensors"), *folder.rglob("config.json")}):
        size = path.stat().st_size
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            head = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            digest.update(f"{name} {size} ".encode() + head + file.read())
    return digest.hexdigest()[:16]


def code_record() -> Card:
    """This package's version, and its commit where it runs from a work tree."""
    record: Card = {"versions": versions(), "commit": UNKNOWN, "changed": None}
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        done = [
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.SubprocessError):  # no git, or no work tree: it stays unknown
        return record
    return {**record, "commit": done[0].stdout.strip(), "changed": bool(done[1].stdout.strip())}


def versions() -> dict[str, str]:
    """Of the packages that take part."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware_record() -> Card:
    """The machine, and the processes of the run."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux: the next line says what there is
    return platform.processor() or UNKNOWN


def command_line() -> str:
    """What was typed, as far as Python knows."""
    import shlex

    program = Path(sys.argv[0]).name
    return shlex.join(["foreseg-train" if program == "cli.py" else program, *sys.argv[1:]])


def write_card(folder: Path, card: Card) -> None:
    """Write both forms.

    Raises:
        InputError: the disk does not take them.
    """
    write_whole(folder / JSON_CARD, json.dumps(card, indent=1, default=str) + "\n")
    write_whole(folder / TEXT_CARD, as_text(card))


def as_text(card: Card) -> str:
    """The card as a page of Markdown."""
    lines = ["# Run card", ""]
    for title, value in card.items():
        lines += [f"## {title.replace('_', ' ')}", ""]
        if isinstance(value, Mapping):
            lines += [f"- {name}: {_line(each)}" for name, each in value.items()]
        else:
            lines.append(_line(value))
        lines.append("")
    return "\n".join(lines)


def _line(value: object) -> str:
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return " ".join(str(value).split())
