# SPDX-License-Identifier: Apache-2.0
"""A question that any reasoner with eyes can answer: does this model, here, see what it is shown?

Two drawn scenes whose truth is known, asked about through the whole reasoner: words, units, masks.
It tells a folder that was converted, quantised or asked wrongly; it measures no skill. Does not
know models, or whether an answer comes as boxes or as masks.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from foreseg.dialogue import (
    Abstained,
    AnswerDone,
    AnswerFailed,
    FramesWanted,
    NoTarget,
    Query,
    QueryId,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import InputError
from foreseg.files import read_file
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow, U8Array
from foreseg.history.reduction import reduce_window
from foreseg.history.windows import HistoryView
from foreseg.masks import Mask, mask_from_box, mask_from_rle, mask_iou
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import Reasoner
from foreseg.reasoner.exchange import checked_ask

CHECK = "check.json"  # beside the weights
GATE_IOU = 0.5
SIZE_WH = (640, 480)
NUM_FRAMES = 8
SHOWN_PX = 448  # as `reasoner.max_side_px` has it
MAX_TEXT_CHARS = 2_000
MAX_CHECK_BYTES = 100_000
_GROUND, _RED, _BLUE, _GREEN = (205, 200, 190), (200, 30, 30), (30, 50, 200), (40, 140, 60)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A still picture, and what a question about it means."""

    query: str
    image: U8Array  # (H, W, 3) RGB
    truth: Mask  # (H, W) bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneAnswer:
    """What came of one question."""

    query: str
    kind: str  # box or mask: what was compared; "" without a target
    iou: float  # with the truth; of boxes: with the box around it
    text: str  # thoughts and answer, as far as the reasoner tells them, or why there is none
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneCheck:
    """All answers; `is_checked` is whether the worst of them is good enough."""

    is_checked: bool
    gate_iou: float
    created: str  # ISO 8601, UTC
    answers: tuple[SceneAnswer, ...]

    @property
    def worst_iou(self) -> float:
        """Of all questions."""
        return min(answer.iou for answer in self.answers)

    @property
    def caution(self) -> str:
        """What its user should know; empty where it passed."""
        if self.is_checked:
            return ""
        return (
            f"UNCHECKED: on drawn scenes its answers overlap the truth by {self.worst_iou:.2f}, at"
            f" least {self.gate_iou:g} is wanted: do not trust them"
        )


def scenes() -> tuple[Scene, ...]:
    """A red ball beside a blue one, and a box among circles."""
    two = _ground()
    red = _disc((170, 260), 70)
    two[red] = _RED
    two[_disc((460, 230), 80)] = _BLUE
    many = _ground()
    for centre in ((120, 120), (330, 110), (540, 150), (150, 360)):
        many[_disc(centre, 55)] = _GREEN
    box = np.zeros(SIZE_WH[::-1], bool)
    box[300:420, 390:540] = True
    many[box] = _GREEN
    return (
        Scene(query="the red ball", image=two, truth=red),
        Scene(query="the box", image=many, truth=box),
    )


def check_reasoner(
    reasoner: Reasoner,
    asked: Sequence[Scene] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> SceneCheck:
    """Ask a reasoner about drawn scenes.

    Args:
        reasoner: built, with its model loaded.
        asked: about these; None: about `scenes`.
        report: is told each answer.
    """
    answers = []
    for scene in scenes() if asked is None else asked:
        answer = _answer(reasoner, scene)
        report(
            f"{answer.query}: {answer.kind or 'no target'}, IoU {answer.iou:.2f},"
            f" {answer.tokens} tokens in {answer.seconds:.1f} s: {answer.text[-200:]!r}"
        )
        answers.append(answer)
    return SceneCheck(
        is_checked=min(answer.iou for answer in answers) >= GATE_IOU,
        gate_iou=GATE_IOU,
        created=dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
        answers=tuple(answers),
    )


def write_check(folder: Path, found: SceneCheck) -> None:
    """Leave it beside the weights.

    Raises:
        InputError: it cannot be written.
    """
    try:
        text = json.dumps(asdict(found), indent=1) + "\n"
        (folder / CHECK).write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{folder / CHECK} cannot be written: {error.strerror or error}"
        raise InputError(msg) from error


def caution_of(folder: Path) -> str:
    """What a folder's check has to say: empty where it passed, or where there is none.

    Raises:
        InputError: it is damaged.
    """
    path = folder / CHECK
    if not path.is_file():
        return ""
    try:
        value = json.loads(read_file(path, MAX_CHECK_BYTES))
        answers = tuple(SceneAnswer(**answer) for answer in value["answers"])
        return SceneCheck(**{**value, "answers": answers}).caution
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read: {error}: check the model again, or remove the file"
        raise InputError(msg) from error


def _answer(reasoner: Reasoner, scene: Scene) -> SceneAnswer:
    window = _window(reasoner, scene.image)
    query = Query(id=QueryId("check"), text=scene.query, want_rationale=True)
    start = time.monotonic()
    said, tokens = "", 0
    targets: tuple[SpatialPrompt, ...] = ()
    stream = checked_ask(reasoner, query, reduce_window(window, SHOWN_PX))
    more: FrameWindow | None = None
    while True:
        try:
            part = stream.send(more)
        except StopIteration:
            break
        more = _more(part, window) if isinstance(part, FramesWanted) else None
        if isinstance(part, RationalePart):
            said += part.text
        elif isinstance(part, TargetsFound):
            targets, said = part.prompts, f"{said}\n{part.text}"
        elif isinstance(part, (NoTarget, Abstained, AnswerFailed)):
            said += f"\n{part.reason}"
        elif isinstance(part, AnswerDone):
            tokens = part.tokens
    kind, iou = _overlap(targets, scene.truth)
    return SceneAnswer(
        query=scene.query,
        kind=kind,
        iou=iou,
        text=said.strip()[-MAX_TEXT_CHARS:],
        tokens=tokens,
        seconds=round(time.monotonic() - start, 3),
    )


def _overlap(prompts: Sequence[SpatialPrompt], truth: Mask) -> tuple[str, float]:
    """What kind of places an answer has, and how far they are those of the truth."""
    size_wh = (truth.shape[1], truth.shape[0])
    masks = [mask_from_rle(prompt.mask) for prompt in prompts if prompt.mask is not None]
    boxes = [mask_from_box(prompt.box, size_wh) for prompt in prompts if prompt.box is not None]
    if masks:
        return "mask", mask_iou(np.any(masks, axis=0), truth)
    if not boxes:
        return "", 0.0
    rows, columns = np.nonzero(truth)
    around = np.zeros_like(truth)
    around[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return "box", mask_iou(np.any(boxes, axis=0), around)


def _window(reasoner: Reasoner, image: U8Array) -> FrameWindow:
    """The frames that the reasoner's policy picks where the scene has stood still for a while."""
    image.flags.writeable = False
    refs = tuple(_ref(i) for i in range(NUM_FRAMES))
    chosen = set(reasoner.window_policy.select(HistoryView(dense=refs, sparse=())))
    frames = tuple(Frame(ref=ref, image=image) for ref in refs if ref.index in chosen)
    return FrameWindow(frames=frames, origin_index=FrameIndex(0))


def _more(part: FramesWanted, window: FrameWindow) -> FrameWindow:
    """Frames as a history that holds them all gives them: the scene stands still."""
    wanted = [int(index) for index in sorted(set(part.indices)) if 0 <= int(index) < NUM_FRAMES]
    frames = tuple(Frame(ref=_ref(number), image=window.newest.image) for number in wanted)
    found = FrameWindow(frames=frames, origin_index=window.origin_index)
    return reduce_window(found, part.side_px or SHOWN_PX)


def _ref(number: int) -> FrameRef:
    """One frame a second."""
    return FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(number),
        epoch=0,
        stamp_ns=number * 10**9,
        received_ns=number * 10**9,
        size_wh=SIZE_WH,
    )


def _ground() -> U8Array:
    """A floor that grows darker towards the viewer."""
    image = np.empty((*SIZE_WH[::-1], 3), np.uint8)
    shade = np.linspace(1.0, 0.8, SIZE_WH[1])[:, None, None]
    image[:] = np.rint(np.asarray(_GROUND) * shade)
    return image


def _disc(centre: tuple[int, int], radius: int) -> Mask:
    rows, columns = np.ogrid[: SIZE_WH[1], : SIZE_WH[0]]
    disc: Mask = np.hypot(columns - centre[0], rows - centre[1]) <= radius
    return disc
