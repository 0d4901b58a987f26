# SPDX-License-Identifier: Apache-2.0
"""A few frames of an episode with the truth outlined and the answer filled, as JPEG text.

Does not know: pages, which episodes are worth a look.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.masks import Mask, MaskRle, mask_from_rle
from foreseg_evaluation.aggregates import mean_of
from foreseg_evaluation.episode import Episode
from foreseg_evaluation.results import EpisodeResult

MAX_FRAMES = 6
WIDTH_PX = 320
JPEG_QUALITY = 75
TRUTH_RGB = (0, 220, 255)
ANSWER_RGB = (255, 112, 0)
CASING_RGB = (20, 16, 12)  # beside both colours: what has them itself does not hide them
_ANSWER_ALPHA = 0.5
_STRIPE_PX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class StripFrame:
    """One frame of a filmstrip.

    Attributes:
        jpeg_base64: the picture.
        size_wh: (W, H) of the picture, pixels.
        stem: of the frame's file.
        time_s: from the first frame, at the declared rate.
        j_and_f: percent; NaN where the frame does not count.
        said: what the masks say: "answer", "answered empty", "nothing answered".
        truth: the true answer here, where it changes over the episode.
    """

    jpeg_base64: str
    size_wh: tuple[int, int]
    stem: str
    time_s: float
    j_and_f: float
    said: str
    truth: str = ""


def make_filmstrip(result: EpisodeResult, episode: Episode) -> tuple[StripFrame, ...]:
    """Draw up to six scored positions, evenly spread.

    Raises:
        DatasetError: a frame or a true mask cannot be read.
        InputError: the answer's masks are no run lengths of the result's size, or a scored
            position is not in the episode.
    """
    count = len(result.positions)
    picks = np.unique(np.linspace(0, count - 1, min(count, MAX_FRAMES)).round().astype(int))
    return tuple(_strip_frame(result, episode, int(i)) for i in picks)


def _strip_frame(result: EpisodeResult, episode: Episode, index: int) -> StripFrame:
    position = result.positions[index]
    if not 0 <= position < episode.num_frames:
        msg = f"episode {result.id!r} has {episode.num_frames} frames, scored position {position}"
        raise InputError(msg)
    counts = [row.masks[index] for row in result.objects]
    answer = _union(counts, result.size_hw)
    picture = _reduced(episode.image(position))
    _fill(picture, answer)
    for truth in episode.target_masks(position).values():
        _outline(picture, truth)
    if any(counts):
        said = "answer"
    else:
        said = "nothing answered" if all(c is None for c in counts) else "answered empty"
    return StripFrame(
        jpeg_base64=_jpeg(picture),
        size_wh=(picture.shape[1], picture.shape[0]),
        stem=episode.frame_names[position],
        time_s=position / episode.rate_hz,
        j_and_f=100 * mean_of(_values(result, index)),
        said=said,
        truth=_truth(episode, position),
    )


def _truth(episode: Episode, position: int) -> str:
    span = episode.span_at(position)
    if len(episode.spans) < 2 or span is None:
        return ""
    return span.answer or ("" if span.object_ids else "nothing fits")


def _values(result: EpisodeResult, index: int) -> Iterator[float]:
    for row in result.objects:
        j, f = row.j[index], row.f[index]
        if j is not None and f is not None:
            yield (j + f) / 2


def _union(counts: Sequence[str | None], size_hw: tuple[int, int]) -> Mask:
    height, width = size_hw
    union: Mask = np.zeros(size_hw, dtype=np.bool_)
    for text in counts:
        if text:
            union |= mask_from_rle(MaskRle(height=height, width=width, counts=text))
    return union


def _reduced(image: U8Array) -> U8Array:
    height, width = image.shape[:2]
    size_wh = (min(width, WIDTH_PX), max(1, round(height * min(1.0, WIDTH_PX / width))))
    return np.ascontiguousarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA))


def _fitted(mask: Mask, picture: U8Array) -> U8Array:
    """The mask at the picture's size; what is smaller than a pixel stays one."""
    size_wh = picture.shape[1::-1]
    share = cv2.resize(mask.astype(np.float32), size_wh, interpolation=cv2.INTER_AREA)
    fitted = (share >= 0.5).astype(np.uint8)
    if not fitted.any():
        fitted = (share > 0).astype(np.uint8)
    return fitted


def _fill(picture: U8Array, mask: Mask) -> None:
    inside = _fitted(mask, picture).astype(bool)
    rows, columns = np.nonzero(inside)
    is_dark = (rows + columns) // _STRIPE_PX % 3 == 0  # a stripe in three
    colours = np.where(is_dark[:, None], np.array(CASING_RGB), np.array(ANSWER_RGB))
    mixed = picture[inside] * (1 - _ANSWER_ALPHA) + colours * _ANSWER_ALPHA
    picture[inside] = mixed.round().astype(np.uint8)


def _outline(picture: U8Array, mask: Mask) -> None:
    fitted = _fitted(mask, picture)
    outlines, _ = cv2.findContours(fitted, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, CASING_RGB, 4, cv2.LINE_AA)
    cv2.drawContours(picture, outlines, -1, TRUTH_RGB, 2, cv2.LINE_AA)


def _jpeg(picture: U8Array) -> str:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        msg = f"OpenCV wrote no JPEG of a picture {picture.shape}"
        raise InputError(msg)
    return base64.b64encode(data.tobytes()).decode("ascii")
