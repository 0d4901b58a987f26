# SPDX-License-Identifier: Apache-2.0
"""Recordings in a mirror: the same things on the other side, and words that say so."""

from __future__ import annotations

import numpy as np
import pytest

from foreseg.masks import mask_from_rle
from foreseg_simulation.recording import image_of

pytest.importorskip("transformers", reason="the room of the nano reasoner needs it")

from foreseg_training.nano.mirroring import mirrored, swapped
from foreseg_training.nano.recordings import Recorder


def test_a_mirror_moves_what_is_seen_and_what_is_said() -> None:
    (recording,) = Recorder(size_wh=(160, 120), num_clips=4).record(1, [0])
    other = mirrored(recording)
    assert len(other.clips) == len(recording.clips)
    for own, seen in zip(recording.shots, other.shots, strict=True):
        assert set(own.objects) == set(seen.objects)
        apart = image_of(seen)[:, ::-1].astype(int) - image_of(own)
        assert np.abs(apart).mean() < 3  # encoded twice
        for i, thing in seen.objects.items():
            mask = mask_from_rle(thing.mask)
            assert np.array_equal(mask[:, ::-1], mask_from_rle(own.objects[i].mask))
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert thing.box_xyxy == box
    numbers = {id(shot): n for n, shot in enumerate(recording.shots)}
    others = {id(shot): n for n, shot in enumerate(other.shots)}
    for own, seen in zip(recording.clips, other.clips, strict=True):
        assert [numbers[id(s)] for s in own.shots] == [others[id(s)] for s in seen.shots]
        for one, two in zip(own.expressions, seen.expressions, strict=True):
            assert one.target_ids == two.target_ids
            assert swapped(two.reasoning) == one.reasoning


def test_what_has_no_pictures_is_mirrored_without_them() -> None:
    bare = Recorder(size_wh=(160, 120), num_clips=4).unpictured(1, 0)
    (recording,) = Recorder(size_wh=(160, 120), num_clips=4).record(1, [0])
    for own, seen in zip(mirrored(recording).shots, mirrored(bare).shots, strict=True):
        assert seen.jpeg == b""
        assert seen.objects == own.objects


def test_only_sides_are_swapped() -> None:
    said = "The left cup moves down and to the right. It has left the view. Leftovers, upright."
    told = "The right cup moves down and to the left. It has left the view. Leftovers, upright."
    assert swapped(said) == told
    assert swapped(told) == said
