# SPDX-License-Identifier: Apache-2.0
"""Recordings: what cannot be played is drawn anew, and no picture is made that nobody looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("cv2", reason="scenes are painted with OpenCV")

from foreseg_simulation.foresight import ForesightScene, StuckSceneError
from foreseg_simulation.recording import Shot, record
from foreseg_training.nano import recordings
from foreseg_training.nano.recordings import Recorder

_RECORDER = Recorder(size_wh=(160, 120), num_clips=3)


@pytest.mark.parametrize("kind", ["recording", "still", "unpictured"])
def test_a_scene_that_cannot_go_on_is_drawn_anew(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = 2

    def recorded(scene: ForesightScene, num_frames: int) -> list[Shot]:
        nonlocal stuck
        stuck -= 1
        if stuck >= 0:
            raise StuckSceneError
        return record(scene, num_frames)

    usual = getattr(_RECORDER, kind)(5, 0)
    monkeypatch.setattr(recordings, "record", recorded)
    other = getattr(_RECORDER, kind)(5, 0)
    assert other.scene == usual.scene
    assert other.shots
    assert [s.objects for s in other.shots] != [s.objects for s in usual.shots]
    stuck = 1000
    with pytest.raises(RuntimeError, match="in a row could not go on"):
        getattr(_RECORDER, kind)(5, 0)


def test_what_is_told_is_what_would_be_shown() -> None:
    shown, told = _RECORDER.recording(5, 1), _RECORDER.unpictured(5, 1)
    assert [replace(shot, jpeg=b"") for shot in shown.shots] == told.shots
    assert shown.events == told.events
    assert len(shown.clips) == len(told.clips) > 0
    kept = {id(shot) for shot in told.shots}
    assert all(id(shot) in kept for clip in told.clips for shot in clip.shots)
