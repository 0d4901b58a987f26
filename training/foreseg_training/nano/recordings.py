# SPDX-License-Identifier: Apache-2.0
"""Many questions from one drawing: recordings of simulated scenes, cut again and again, and stories.

Drawing is what costs: a recording of 18 seconds gives a dozen clips of one to four questions each. A story is one
long clip, of which a prompt shows few frames: drawn quickly. Does not know: models, prompts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foreseg_simulation.clip import CLIP_RATE_HZ, RECORDED_FRAMES, Clip, cut_recording
from foreseg_simulation.foresight import ForesightScene, SceneConfig, StuckSceneError
from foreseg_simulation.long_clip import cut_long
from foreseg_simulation.questions import PastEvent
from foreseg_simulation.recording import Shot, events_of, record
from foreseg_simulation.worlds import PACES, World, scenes_of

TRAINING_SEED = (
    7_000_003  # apart from the commands of `foreseg-sim`, which seed by split and number
)
STILL_RATE_HZ = 2.0  # slower, some scenes of the tabletop cannot be played
_LOG = logging.getLogger(__name__)
_TRIES = 8
_NUM_STILLS, _STILL_STEP = 7, 3  # of a scene, and every third frame of these


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """One scene, compressed frame by frame, and clips that are cut of it.

    Attributes:
        names: of its objects, by instance id.
        shots: every frame.
        clips: with questions; their shots are some of `shots`.
        events: what has come true, in order.
    """

    scene: str
    names: Mapping[int, str]
    shots: Sequence[Shot]
    clips: Sequence[Clip]
    events: Sequence[PastEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Draws recordings; equal seeds and numbers give equal ones.

    Attributes:
        worlds: in turn, one scene of each after the other.
        size_wh: of the frames, pixels.
        num_clips: tried to be cut of a recording; there may be fewer.
        story_share: of the recordings, 0..1: stories (`foreseg_simulation.stories`) in place of a world's scenes.
        needs_images: of scenes; see `SceneConfig`.
    """

    worlds: Sequence[World] = (World.SHAPES,)
    size_wh: tuple[int, int] = (224, 168)
    num_clips: int = 12
    story_share: float = 0.0
    needs_images: bool = True

    def record(self, seed: int, numbers: Sequence[int]) -> Iterator[Recording]:
        """Draw the recordings of these numbers."""
        for number in numbers:
            yield self.recording(seed, number)

    def still(self, seed: int, number: int) -> Recording:
        """Draw a few frames of another scene, without clips: many objects, drawn quickly."""
        rng = np.random.default_rng([TRAINING_SEED, seed, number, 1])
        count = _NUM_STILLS * _STILL_STEP
        scene, names, shots = self._played(rng, number, STILL_RATE_HZ, count)
        return Recording(scene=scene, names=names, shots=shots[::_STILL_STEP], clips=(), events=())

    def unpictured(self, seed: int, number: int) -> Recording:
        """Draw one of the scenes, and forget its pictures: what can be asked, where all was seen."""
        drawn = replace(self, story_share=0.0, needs_images=False).recording(seed, number)
        bare = {id(shot): replace(shot, jpeg=b"") for shot in drawn.shots}
        clips = [
            replace(clip, shots=tuple(bare[id(shot)] for shot in clip.shots))
            for clip in drawn.clips
        ]
        return replace(drawn, shots=list(bare.values()), clips=clips)

    def _played(
        self, rng: np.random.Generator, number: int, rate_hz: float, count: int
    ) -> tuple[str, dict[int, str], list[Shot]]:
        """A scene's name, its names, and its first frames; of another seed where one cannot go on."""
        for _ in range(_TRIES):
            name, scene = self._scene(rng, number, rate_hz)
            names = dict(scene.names)  # a recording goes from process to process, a view does not
            try:
                return name, names, record(scene, count)
            except StuckSceneError:
                _LOG.info("%s number %d cannot go on: another seed", name, number)
        msg = f"{_TRIES} scenes of number {number} in a row could not go on"
        raise RuntimeError(msg)

    def _scene(
        self, rng: np.random.Generator, number: int, rate_hz: float
    ) -> tuple[str, ForesightScene]:
        scenes = [(w, name, make) for w in self.worlds for name, make in scenes_of(w).items()]
        world, name, make = scenes[number % len(scenes)]
        config = SceneConfig(
            size_wh=self.size_wh,
            rate_hz=rate_hz,
            num_targets=int(rng.integers(3, 6)),
            leg_s=PACES[world].clip_leg_s,
            needs_images=self.needs_images,
        )
        return f"{world.value}/{name}", make(int(rng.integers(2**31)), config)

    def recording(self, seed: int, number: int) -> Recording:
        """Draw one."""
        rng = np.random.default_rng([TRAINING_SEED, seed, number])
        num_stories = int((number + 1) * self.story_share)
        if num_stories > int(number * self.story_share):
            return self._story(rng)
        name, names, shots = self._played(rng, number - num_stories, CLIP_RATE_HZ, RECORDED_FRAMES)
        cut = (cut_recording(rng, shots, names, self.size_wh) for _ in range(self.num_clips))
        return Recording(
            scene=name,
            names=names,
            shots=shots,
            clips=[clip for clip in cut if clip is not None],
            events=events_of(shots),
        )

    def _story(self, rng: np.random.Generator) -> Recording:
        """All that is observed of one, as one clip."""
        for _ in range(_TRIES):
            clip = cut_long(int(rng.integers(2**31)), "train", rng, size_wh=self.size_wh)
            if clip is not None:
                return Recording(
                    scene="stories", names=clip.names, shots=clip.shots, clips=[clip], events=()
                )
        msg = f"{_TRIES} stories in a row left nothing to ask"
        raise RuntimeError(msg)
