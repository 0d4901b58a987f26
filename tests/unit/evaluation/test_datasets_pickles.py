# SPDX-License-Identifier: Apache-2.0
"""Pickles of datasets hold plain data; whatever else is in them is refused and never runs."""

from __future__ import annotations

import collections
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="datasets need the extra [evaluation]")
pytest.importorskip("tqdm", reason="datasets need the extra [evaluation]")
pytest.importorskip("cv2", reason="datasets need the extra [evaluation]")
pytest.importorskip("pycocotools.mask", reason="the trees' run lengths")

from tests.support import dataset_trees as trees

from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.datasets.restricted_pickle import read_plain_pickle
from foreseg_evaluation.problems import DatasetError


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_by_name_and_does_not_run(
    tmp_path: Path, protocol: int
) -> None:
    trees.write_refcoco(tmp_path)
    trap = tmp_path / "trap"
    path = tmp_path / "refcoco/refs(unc).p"
    hostile = pickle.dumps([Hostile(f"touch {trap}")], protocol=protocol)
    path.write_bytes(hostile)
    with pytest.raises(DatasetError, match=r"names (posix|nt)\.system, and only plain") as caught:
        read_dataset(tmp_path, "refcoco")
    assert caught.value.problem.file == str(path)
    assert not trap.exists()
    pickle.loads(hostile)  # noqa: S301 (the trap is real: the plain way does run it)
    assert trap.exists()


@pytest.mark.parametrize("value", [np.int64(3), np.zeros(2), collections.OrderedDict(a=1), print])
def test_other_globals_are_refused_too(tmp_path: Path, value: object) -> None:
    path = tmp_path / "x.p"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DatasetError, match="only plain data is read"):
        read_plain_pickle(path)


def test_plain_pickles_of_python_2_and_3_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.p"
    value = {"a": [1, 2.5, True, None, "\u00e9"], "b": (b"\xff",), "c": {3}}
    path.write_bytes(pickle.dumps(value, protocol=4))
    assert read_plain_pickle(path).value == value
    path.write_bytes(b"\x80\x02}q\x00U\x04sentq\x01U\x04caf\xe9q\x02s.")  # {'sent': 'caf\xe9'}
    assert read_plain_pickle(path).value == {"sent": "caf\u00e9"}


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x04", b"(lp0\nI1\n", b"cos\nsystem\n"])
def test_nonsense_is_no_pickle(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.p"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="no whole pickle of plain data"):
        read_plain_pickle(path)
