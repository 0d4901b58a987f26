# SPDX-License-Identifier: Apache-2.0
"""What docs/security.md says is never done: nothing that is read is run. Read from the syntax trees.

That no model brings code of its own is `test_no_model_runs_code_of_its_own` in test_architecture.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import PACKAGES, files_of, nodes_of

ROOT = Path(__file__).resolve().parent.parent

# Who may unpickle: only what a process of the same run has written.
UNPICKLING = {
    "runtime/foreseg/reasoner/channel.py": "from the process that we started, or that started us",
    "training/foreseg_training/executor_pool.py": "from this run's own process",
    "training/foreseg_training/tracking.py": "a file that this run wrote",
    "evaluation/foreseg_evaluation/datasets/restricted_pickle.py": "refuses every name",
}
# Calls that run what they are given, or may.
RUNNING = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
LOADERS = {
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader"),
    *("marshal.load", "marshal.loads", "shelve.open", "joblib.load", "dill.load", "dill.loads"),
    *("cloudpickle.load", "cloudpickle.loads", "torch.hub.load", "pandas.read_pickle"),
}
PICKLES = {"pickle.load", "pickle.loads", "pickle.Unpickler"}
MUST_SAY = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def has(call: ast.Call, name: str, *, value: bool) -> bool:
    return any(
        word.arg == name and isinstance(word.value, ast.Constant) and word.value.value is value
        for word in call.keywords
    )


def faults(path: Path, name: str) -> Iterator[str]:
    """What of a file runs, or might run, what it reads."""
    for node in nodes_of(path):
        if isinstance(node, ast.Attribute) and dotted(node) in PICKLES and name not in UNPICKLING:
            yield f"{name}:{node.lineno} unpickles"
        if not isinstance(node, ast.Call):
            continue
        called, place = dotted(node.func), f"{name}:{node.lineno}"
        if called in RUNNING | SHELLS | LOADERS:
            yield f"{place} calls {called}"
        if any(word.arg == "shell" for word in node.keywords) and not has(
            node, "shell", value=False
        ):
            yield f"{place} starts a shell"
        if called in MUST_SAY:
            argument, value = MUST_SAY[called]
            if not has(node, argument, value=value):
                yield f"{place} wants {called}(..., {argument}={value})"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_that_is_read_is_run(package: str) -> None:
    found = [
        fault for path in files_of(package) for fault in faults(path, str(path.relative_to(ROOT)))
    ]
    assert found == []


def test_who_may_unpickle_still_does() -> None:
    for name in UNPICKLING:
        assert any(dotted(node) in PICKLES for node in nodes_of(ROOT / name)), name


@pytest.mark.parametrize(
    "line",
    [
        "import pickle; pickle.load(file)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path)",
        "subprocess.run(words, shell=True)",
        "eval(text)",
        "yaml.load(text, yaml.Loader)",
    ],
)
def test_each_of_these_would_be_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(line)
    assert list(faults(path, "bad.py"))
