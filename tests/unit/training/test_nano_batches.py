# SPDX-License-Identifier: Apache-2.0
"""Batches of the nano reasoner's training: which numbers are nearly right, and which are right or wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="trains: pip install 'foreseg[train]'")
pytest.importorskip("transformers", reason="trains: pip install 'foreseg[train]'")

from foreseg_training.nano.batches import Batcher, Row
from foreseg_training.nano.features import FrameStore
from foreseg_training.nano.tokenizer import MAX_NUMBER, train_tokenizer
from foreseg_training.nano.windows import Window


def test_labels_are_no_nearly_right_numbers_however_large(tmp_path: Path) -> None:
    said = f"The ball: 31[7, 8], {MAX_NUMBER + 300}[]; 1234[9, 10]. "
    answer = '{"keyframe_timestamp": 1234, "bbox_2d_list": [[5, 6, 11, 12]]}'
    tokenizer = train_tokenizer(2 * [said, answer], [])
    ids = tokenizer(f"\n{said}{answer}", add_special_tokens=False).input_ids
    window = Window(frames=(0,), beginning=ids[:1], asked=(ids,), num_prompt=(1,))
    store = FrameStore(tmp_path / "frames.npy", (1, 2, 4))
    batcher = Batcher([window], store, tokenizer, num_windows=1, num_asked=1)
    side = batcher.batch([window], [Row(0, ids, 1)]).side[0]
    assert side[side >= 0].tolist() == [7, 8, 9, 10, 5, 6, 11, 12]
