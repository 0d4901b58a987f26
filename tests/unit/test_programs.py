# SPDX-License-Identifier: Apache-2.0
"""Programs of an installation: their own exit codes, and a sentence where a package is absent."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from foreseg import programs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("code", [None, 0, 3])
def test_a_program_ends_as_its_main_does(
    code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("foreseg_simulation.cli")
    monkeypatch.setattr(module, "main", lambda: code, raising=False)
    monkeypatch.setitem(sys.modules, "foreseg_simulation.cli", module)
    assert programs.simulate() == (code or 0)


@pytest.mark.parametrize(
    ("program", "name", "absent", "advice"),
    [
        (programs.node, "foreseg_node", "rclpy", "is ROS 2 sourced"),
        (programs.node, "foreseg_node", "foreseg_msgs", "is ROS 2 sourced"),
        (programs.view, "foreseg_view", "rclpy", "is ROS 2 sourced"),
        (programs.simulate, "foreseg-sim", "cv2", "foreseg[simulation]"),
        (programs.evaluate, "foreseg-eval", "scipy", "foreseg[evaluation]"),
        (programs.train, "foreseg-train", "torch", "foreseg[train]"),
        (programs.export, "foreseg-export", "onnx", "foreseg[export]"),
    ],
)
def test_what_is_absent_is_one_sentence(
    program: types.FunctionType,
    name: str,
    absent: str,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: str) -> object:
        msg = f"No module named {absent!r}"
        raise ModuleNotFoundError(msg, name=absent)

    monkeypatch.setattr(programs.importlib, "import_module", fail)
    assert program() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{name} needs the package {absent!r}")
    assert advice in said
    assert said.count("\n") == 1


def test_a_part_of_ours_that_is_not_there_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> object:
        raise ModuleNotFoundError(name="foreseg_simulation")

    monkeypatch.setattr(programs.importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        programs.simulate()


def test_every_program_of_the_installation_is_one_of_these() -> None:
    found = re.findall(
        r'"(foreseg[\w-]*) = ([\w.]+):(\w+)"', (ROOT / "setup.py").read_text("utf-8")
    )
    ours = {name: entry for name, module, entry in found if module == "foreseg.programs"}
    assert len(ours) == 6
    assert all(callable(getattr(programs, entry)) for entry in ours.values())
    others = {name for name, module, _ in found if module != "foreseg.programs"}
    assert others == {"foreseg"}, "it says itself what is absent"
