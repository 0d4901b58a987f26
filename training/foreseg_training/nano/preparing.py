# SPDX-License-Identifier: Apache-2.0
"""From nothing to rows: draw recordings, make the tokenizer, teach the tower, keep what it sees.

Leaves `start/` (a model folder whose tower sees), `frames.npy`, and windows with questions: `listings.jsonl`, `places.jsonl`,
`lessons.jsonl`, `glances.jsonl`, `sightings.jsonl`, `told.jsonl`, `windows.jsonl` and `held_out.jsonl`; `thoughts.txt` says
which words their thoughts have.
Does not know: how the language model is trained.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from foreseg.errors import InputError
from foreseg.language.base import Message
from foreseg.language.images import ImageGeometry
from foreseg.methods.grammar import Form
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.reasoner.fitted_view import FittedView
from foreseg.reasoner.prompt_card import CARD, PromptCard, words_hash
from foreseg.work.base import Executor, in_order
from foreseg_simulation.worlds import World
from foreseg_torch.vlm.loading import vlm_parts
from foreseg_torch.vlm.vision_inputs import prompt_from_messages

from .architecture import (
    NanoReasonerConfig,
    build_nano_reasoner,
    grown,
    read_nano_reasoner,
    save_nano_reasoner,
)
from .dense import DenseConfig, encoded, train_tower
from .features import FrameStore
from .listings import frame_prompt, listing_of, places_of
from .mirroring import mirrored
from .questions import (
    Asked,
    asked_about,
    lessons_about,
    phrases_prompts,
    sightings_about,
    truth_of,
)
from .recordings import Recorder, Recording
from .tokenizer import END, phrases_of, train_tokenizer
from .told import write_told
from .tracks import THOUGHTS
from .windows import Window, window_of, write_windows

_PLACES_ASKED = 6  # of each frame
_STILL_STEP = 3  # of a scene's few frames the language model is shown every third
_FIRST_STILL = 1_000_000  # the number of a scene
_STILL_GLANCES = 3  # of such a scene
_LOG = logging.getLogger(__name__)
_THOUGHTS = "thoughts.txt"
FORMS = (Form.THINK_FIRST, Form.ANSWER_FIRST, Form.ANSWER_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Numbers of the stage.

    Attributes:
        num_recordings: drawn, one of each scene in turn.
        story_share: of them, stories; see `Recorder`.
        num_held_out: of them, the last ones, which are never learnt from.
        num_told: further scenes, of which nothing is kept but words (`told`).
        num_stills: further scenes of which a few frames each are seen: by the tower, and in listings and glances.
        is_mirrored: whether each recording that is learnt from, and each scene that is told, is also learnt in a mirror.
        num_lessons: short windows of each recording, with a few questions each, to begin with; and as many glances.
        frame_pixels: at which frames are read, at most.
        num_frames: of a prompt, at most.
        dense: how the tower is taught; with no minutes it is kept as it is.
        trained: a folder of a nano reasoner to go on from; its words are kept, and of `model` only the number of layers is
            used, if it is larger. None: from nothing.
    """

    worlds: tuple[World, ...] = (World.SHAPES, World.TABLETOP)
    num_recordings: int = 608
    story_share: float = 0.3
    num_held_out: int = 19
    num_told: int = 1200
    num_clips: int = 12
    num_stills: int = 2000
    is_mirrored: bool = True
    num_lessons: int = 12
    size_wh: tuple[int, int] = (224, 168)
    image_side_px: int = 224
    frame_pixels: int = 168 * 140
    num_frames: int = 12
    model: NanoReasonerConfig = field(default_factory=NanoReasonerConfig)
    dense: DenseConfig = field(default_factory=DenseConfig)
    trained: Path | None = None
    seed: int = 0

    def method(self, form: Form | None) -> VeasonMethod:
        """As it will run on the robot; None: in the form that a query wants."""
        view = FittedView(
            image_side_px=self.image_side_px,
            patch_px=self.model.token_px,
            frame_pixels=self.frame_pixels,
        )
        settings = VeasonSettings(
            num_frames=self.num_frames, form=form, view=view, tells_budget=False
        )
        return VeasonMethod(settings)


def prepare(preparation: Preparation, out: Path, executor: Executor) -> None:
    """Do all of it; what is there already is made anew.

    Args:
        preparation: of what.
        out: the folder.
        executor: draws the recordings.

    Raises:
        InputError: a recording's drawing dies, every time.
    """
    recorder = Recorder(
        worlds=preparation.worlds,
        size_wh=preparation.size_wh,
        num_clips=preparation.num_clips,
        story_share=preparation.story_share,
    )
    end = preparation.num_recordings
    pictured, unpictured = (
        partial(draw, preparation.seed) for draw in (recorder.recording, recorder.unpictured)
    )
    recordings = list(_drawn(executor, pictured, range(end), "recording"))
    scenes = range(_FIRST_STILL, _FIRST_STILL + preparation.num_stills)
    still = partial(recorder.still, preparation.seed)
    stills = list(_drawn(executor, still, scenes, "scene seen"))
    further = range(end, end + preparation.num_told)
    told = _drawn(executor, unpictured, further, "scene told")
    prepare_of(preparation, recordings, out, told, stills)


def is_of_today(out: Path) -> bool:
    """Whether thoughts in what was prepared say what was seen in the words of now (`tracks.THOUGHTS`)."""
    path = out / _THOUGHTS
    return path.is_file() and path.read_text("utf-8").strip() == str(THOUGHTS)


def _drawn(
    executor: Executor, draw: Callable[[int], Recording], numbers: range, unit: str
) -> Iterator[Recording]:
    outcomes = in_order(executor.run(draw, numbers))
    for outcome in tqdm(outcomes, total=len(numbers), unit=unit, disable=None):
        if outcome.has_died:
            msg = f"whoever drew {unit} {outcome.index} died {outcome.num_tries} times"
            raise InputError(msg)
        yield from outcome.values


def prepare_of(
    preparation: Preparation,
    recordings: Sequence[Recording],
    out: Path,
    unpictured: Iterable[Recording],
    stills: Sequence[Recording],
) -> None:
    """The same of recordings that are there; the last ones of them are held out, those without pictures are told."""
    if preparation.is_mirrored:
        learnt = recordings[: len(recordings) - preparation.num_held_out]
        others = map(mirrored, tqdm(learnt, unit="mirror", disable=None))
        recordings = [*others, *recordings]
    methods = _methods(preparation)
    rng = np.random.default_rng([preparation.seed, 5])
    asked = [list(asked_about(recording, methods, rng)) for recording in recordings]
    num_asked = sum(len(window) for windows in asked for window in windows)
    _LOG.info("%d recordings, %d questions", len(recordings), num_asked)
    start = out / "start"
    if preparation.trained is None:
        tokenizer = _tokenizer(preparation, methods, asked)
        model = build_nano_reasoner(preparation.model, tokenizer, preparation.seed)
        save_nano_reasoner(model, tokenizer, start)
        geometry = vlm_parts(start).geometry
    else:
        tokenizer, model = read_nano_reasoner(preparation.trained)
        has = model.config.text_config.num_hidden_layers
        model = grown(model, tokenizer, max(has, preparation.model.text_layers))
        geometry = vlm_parts(preparation.trained).geometry
    if preparation.dense.minutes > 0:
        learnt = [*recordings[: len(recordings) - preparation.num_held_out], *stills]
        train_tower(
            model, tokenizer, geometry, preparation.frame_pixels, learnt, preparation.dense,
            goes_on=preparation.trained is not None,
        )  # fmt: skip
    save_nano_reasoner(model, tokenizer, start)
    _write_card(preparation, start)
    told = _with_mirrors(unpictured) if preparation.is_mirrored else unpictured
    write_told(told, methods, start, out, seed=preparation.seed)
    _write_windows(preparation, out, recordings, asked, stills, tokenizer, model, geometry)


def _with_mirrors(recordings: Iterable[Recording]) -> Iterator[Recording]:
    for recording in recordings:
        yield from (recording, mirrored(recording))


def _methods(preparation: Preparation) -> dict[Form, VeasonMethod]:
    return {form: preparation.method(form) for form in FORMS}


def _write_card(preparation: Preparation, folder: Path) -> None:
    card = PromptCard(
        method=VeasonMethod.name,
        form="",  # it knows all of them
        num_frames=preparation.num_frames,
        image_side_px=preparation.image_side_px,
        frame_pixels=preparation.frame_pixels,
        tells_budget=False,
        words=words_hash(preparation.method(None)),
    )
    (folder / CARD).write_text(card.to_json(), "utf-8")


def _tokenizer(
    preparation: Preparation,
    methods: Mapping[Form, VeasonMethod],
    asked: Sequence[Sequence[Sequence[Asked]]],
) -> Any:  # noqa: ANN401 (of transformers)
    frames = preparation.num_frames
    fixed = [
        prompt
        for count in range(1, frames + 1)
        for prompt in phrases_prompts(list(methods.values()), count, preparation.size_wh)
    ]
    texts = [
        text
        for windows in asked
        for window in windows
        for one in window
        for text in (*_words(one.messages), one.completion)
    ]
    return train_tokenizer(texts, phrases_of(fixed))


def _words(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        yield from (part for part in message.content if isinstance(part, str))


def _write_windows(
    preparation: Preparation,
    out: Path,
    recordings: Sequence[Recording],
    asked: Sequence[Sequence[Sequence[Asked]]],
    stills: Sequence[Recording],
    tokenizer: Any,  # noqa: ANN401
    model: Any,  # noqa: ANN401
    geometry: ImageGeometry,
) -> None:
    """All questions as token ids, and the tokens of those frames that they show."""
    shown = [sorted({shot for group in windows for shot in group[0].shots}) for windows in asked]
    shown += [list(range(0, len(still.shots), _STILL_STEP)) for still in stills]
    places = _store_frames(preparation, out, [*recordings, *stills], shown, model, geometry)
    first_held_out = len(recordings) - preparation.num_held_out
    wording = _Wording(preparation, tokenizer, geometry)
    rng = np.random.default_rng([preparation.seed, 9])
    methods = _methods(preparation)

    def windows(numbers: Iterable[int]) -> Iterator[Window]:
        for number in numbers:
            for group in asked[number]:
                yield wording.window(group, places[number])

    def lessons() -> Iterator[Window]:
        for number in range(first_held_out):
            shots = sorted(places[number])
            count = preparation.num_lessons if shots else 0
            for group in lessons_about(recordings[number], methods, rng, shots, count):
                yield wording.window(group, places[number])

    learnt = asked[:first_held_out]
    known = [
        *zip(recordings[:first_held_out], places, strict=False),
        *zip(stills, places[len(recordings) :], strict=True),
    ]
    write_windows(out / "listings.jsonl", _listings(known, wording, rng))
    write_windows(out / "places.jsonl", _places_asked(known, wording, rng))
    write_windows(out / "lessons.jsonl", lessons())
    write_windows(out / "glances.jsonl", _glances(preparation, known, learnt, wording, rng))
    write_windows(out / "sightings.jsonl", _sightings(places, learnt, wording, rng))
    write_windows(out / "windows.jsonl", windows(range(first_held_out)))
    write_windows(out / "held_out.partial", windows(range(first_held_out, len(recordings))))
    (out / _THOUGHTS).write_text(f"{THOUGHTS}\n", encoding="utf-8")
    (out / "held_out.partial").replace(out / "held_out.jsonl")  # last: it says that all is there


class _Wording:
    """Questions as token ids, with frames of one size."""

    def __init__(
        self,
        preparation: Preparation,
        tokenizer: Any,  # noqa: ANN401
        geometry: ImageGeometry,
    ) -> None:
        self.tokenizer, self._geometry = tokenizer, geometry
        wh = geometry.fitted_wh(preparation.size_wh, preparation.frame_pixels)
        self.image = geometry.image_token * (wh[0] * wh[1] // geometry.unit_px**2)
        self.scale_xy = (wh[0] / preparation.size_wh[0], wh[1] / preparation.size_wh[1])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each text."""
        found: list[list[int]] = self.tokenizer(texts, add_special_tokens=False).input_ids
        return found

    def window(
        self, group: Sequence[Asked], places: Mapping[int, int], *, is_cut: bool = False
    ) -> Window:
        """Of one clip's questions; if what is said `is_cut`, it goes on."""
        texts = [
            prompt_from_messages(one.messages, self.tokenizer, self._geometry) for one in group
        ]
        prompts = [text.replace(self._geometry.image_token, self.image) for text in texts]
        return window_of(
            [places[shot] for shot in group[0].shots],
            self.ids(prompts),
            self.ids([one.completion + ("" if is_cut else END) for one in group]),
            self.tokenizer,
            [truth_of(one, self.scale_xy).to_json() for one in group],
        )


_Known = Sequence[
    tuple[Recording, Mapping[int, int]]
]  # recordings, and where their shots are stored


def _listings(known: _Known, wording: _Wording, rng: np.random.Generator) -> Iterator[Window]:
    (prompt,) = wording.ids([frame_prompt(wording.image)])
    for recording, places in known:
        for shot, place in places.items():
            listing = listing_of(recording.shots[shot], recording.names, wording.scale_xy, rng)
            said = wording.ids([listing + END])
            yield window_of([place], [prompt], said, wording.tokenizer)


def _places_asked(known: _Known, wording: _Wording, rng: np.random.Generator) -> Iterator[Window]:
    for recording, places in known:
        for shot, place in places.items():
            seen = recording.shots[shot]
            pairs = places_of(seen, recording.names, wording.scale_xy, rng, _PLACES_ASKED)
            if pairs:
                prompts = wording.ids([frame_prompt(wording.image) + at for at, _ in pairs])
                said = wording.ids([name + END for _, name in pairs])
                yield window_of([place], prompts, said, wording.tokenizer)


def _glances(
    preparation: Preparation,
    known: _Known,
    asked: Sequence[Sequence[Sequence[Asked]]],
    wording: _Wording,
    rng: np.random.Generator,
) -> Iterator[Window]:
    """What a few frames show, of each recording and each still; asked what was asked of any."""
    every = (one for windows in asked for group in windows for one in group)
    texts = sorted({one.question for one in every if one.seen})
    if not texts:
        msg = "no question of the recordings tells what is seen: let more of them be drawn"
        raise InputError(msg)
    method = preparation.method(Form.THINK_FIRST)
    for recording, places in known:
        count = preparation.num_lessons if recording.clips else _STILL_GLANCES
        for one in sightings_about(recording, method, rng, sorted(places), texts, count):
            yield wording.window([one], places, is_cut=True)


def _sightings(
    places: Sequence[Mapping[int, int]],
    asked: Sequence[Sequence[Sequence[Asked]]],
    wording: _Wording,
    rng: np.random.Generator,
) -> Iterator[Window]:
    """What each window shows, said once, whatever else is asked of it."""
    for its, windows in zip(places, asked, strict=False):
        for group in windows:
            of_what = [one for one in group if one.seen]
            if of_what:
                one = of_what[int(rng.integers(len(of_what)))]
                yield wording.window([replace(one, completion=one.seen)], its, is_cut=True)


def _store_frames(
    preparation: Preparation,
    out: Path,
    recordings: Sequence[Recording],
    used: Sequence[Sequence[int]],
    model: Any,  # noqa: ANN401
    geometry: ImageGeometry,
) -> list[dict[int, int]]:
    """Keep the tokens of all frames that are shown, `used` of each recording; where in the file its shots are."""
    places: list[dict[int, int]] = []
    for numbers in used:
        first = sum(map(len, places))
        places.append({shot: first + i for i, shot in enumerate(numbers)})
    shots = [r.shots[i] for r, numbers in zip(recordings, used, strict=True) for i in numbers]
    bf16 = preparation.dense.bf16
    seen = encoded(model, geometry, preparation.frame_pixels, shots, bf16=bf16)
    store: FrameStore | None = None
    for number, tokens in enumerate(tqdm(seen, total=len(shots), unit="frame", disable=None)):
        if store is None:
            store = FrameStore(out / "frames.npy", (len(shots), *tokens.shape))
        store.array[number] = tokens
    return places
