# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in a dataset's files: reading it ends, or raises `DatasetError`."""

from __future__ import annotations

import json
import math
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL", reason="datasets need the extra [evaluation]")
pytest.importorskip("tqdm", reason="datasets need the extra [evaluation]")
pytest.importorskip("cv2", reason="datasets need the extra [evaluation]")
pytest.importorskip("pycocotools.mask", reason="the trees' run lengths")

from tests.support import dataset_trees as trees

from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.episode import Episode
from foreseg_evaluation.problems import DatasetError

ROUNDS = 12  # for each tree
NONSENSE: tuple[Any, ...] = (
    *(None, True, -1, 0, 3.5, 1e300, math.nan, math.inf, 10**30),
    *("", "x", "..", "a/b", "/", "0" * 5000),
    *([], [[]], [None], [1, 2], ["0"], {}, {"0": {}}, {"size": 1}),
)


def places_of(value: Any) -> list[tuple[Any, Any]]:
    """Every container with every key in it."""
    if not isinstance(value, (dict, list)):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, k) for k in keys] + [p for k in keys for p in places_of(value[k])]


def look_at_everything(episode: Episode) -> None:
    for position in episode.annotated:
        try:
            episode.truth(position)
            episode.media.void(position)
            episode.media.foreground(position)
        except DatasetError:
            pass  # this mask is told about, the next is looked at


@pytest.mark.parametrize("name", trees.TREES)
def test_nonsense_raises_nothing_but_dataset_errors(name: str, tmp_path: Path) -> None:
    form, split, write = trees.TREES[name]
    write(tmp_path)
    paths = sorted(p for p in tmp_path.rglob("*") if p.suffix in {".json", ".p", ".pkl"})
    if not paths:
        pytest.skip("this form has neither JSON nor pickles")
    rng = random.Random(name)
    for _ in range(ROUNDS):
        path = rng.choice(paths)
        data = path.read_bytes()
        is_json = path.suffix == ".json"
        value = json.loads(data.decode("cp1252")) if is_json else pickle.loads(data)  # noqa: S301
        places = places_of(value)
        container, key = rng.choice(places[: rng.choice((10, 60, len(places)))])
        container[key] = rng.choice(NONSENSE)
        path.write_bytes(json.dumps(value).encode() if is_json else pickle.dumps(value))
        for episode in read_tolerantly(tmp_path, form, split):
            look_at_everything(episode)
        path.write_bytes(data)


def read_tolerantly(root: Path, form: str, split: str) -> tuple[Episode, ...]:
    try:
        return read_dataset(root, form, split=split).episodes
    except DatasetError:
        return ()
