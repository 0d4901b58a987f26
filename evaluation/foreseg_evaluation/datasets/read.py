# SPDX-License-Identifier: Apache-2.0
"""Reads a dataset of any known form; each form has its module here.

Only JSON, lists and headers are read at once; frames and masks when an episode is asked for
them. Does not know: systems, scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foreseg.errors import ConfigError
from foreseg_evaluation.episode import Dataset, Episode
from foreseg_evaluation.problems import ProblemLog, refuse

from .davis import read_davis2016, read_davis2017
from .drawings import read_drawings
from .mask_dicts import read_fevos, read_mevis, read_revos
from .reading import Reading
from .reason_seg import read_reason_seg
from .reason_vos import read_reason_vos
from .ref_davis import read_ref_davis, read_ref_davis_classic
from .ref_youtube_vos import read_ref_youtube_vos
from .refer_coco import read_grefcoco, read_refcoco, read_refcoco_plus, read_refcocog
from .sa_v import read_sa_v

Reader = Callable[[Reading], list[Episode]]

_GUESSED = "the frame rate is not published: 6 Hz, as in YouTube-VOS, is assumed"
MAX_RATE_HZ = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A dataset's way of lying on disk.

    Attributes:
        read: reads a split.
        splits: known splits.
        default_split: one of them.
        rate_hz: frames per second that its frames stand for.
        rate_note: said where that is a guess; "" = it is known.
        about: one line.
    """

    read: Reader
    splits: tuple[str, ...]
    default_split: str
    rate_hz: float
    about: str
    rate_note: str = ""


FORMS = {
    "fevos": Form(
        read=read_fevos,
        splits=("train", "val", "dev"),
        default_split="val",
        rate_hz=6.0,
        rate_note=_GUESSED,
        about="foresight questions, official or made by the simulation",
    ),
    "drawings": Form(
        read=read_drawings,
        splits=("train", "val", "dev"),
        default_split="train",
        rate_hz=6.0,
        about="the simulation's stories as raw arrays, to train from",
    ),
    "revos": Form(
        read=read_revos,
        splits=("train", "train_sub", "valid"),
        default_split="valid",
        rate_hz=6.0,
        rate_note=_GUESSED,
        about="referring, reasoning and nonexistent objects in videos",
    ),
    "mevis": Form(
        read=read_mevis,
        splits=("train", "valid_u", "valid"),
        default_split="valid_u",
        rate_hz=6.0,
        rate_note=_GUESSED,
        about="motion expressions; `valid` has no truth",
    ),
    "ref_youtube_vos": Form(
        read=read_ref_youtube_vos,
        splits=("train", "valid"),
        default_split="valid",
        rate_hz=6.0,
        about="referring expressions; `valid` has a truth in a later release only",
    ),
    "ref_davis": Form(
        read=read_ref_davis,
        splits=("train", "valid"),
        default_split="valid",
        rate_hz=24.0,
        about="Ref-DAVIS17, every expression scored on its own",
    ),
    "ref_davis_classic": Form(
        read=read_ref_davis_classic,
        splits=("train", "valid"),
        default_split="valid",
        rate_hz=24.0,
        about="Ref-DAVIS17, four sets of expressions, one for each object of a video",
    ),
    "reason_vos": Form(
        read=read_reason_vos,
        splits=("test",),
        default_split="test",
        rate_hz=6.0,
        rate_note=_GUESSED,
        about="reasoning questions over four sources of videos",
    ),
    "davis2016": Form(
        read=read_davis2016,
        splits=("train", "val"),
        default_split="val",
        rate_hz=24.0,
        about="one object given by its first mask",
    ),
    "davis2017": Form(
        read=read_davis2017,
        splits=("train", "val"),
        default_split="val",
        rate_hz=24.0,
        about="several objects given by their first masks",
    ),
    "sa_v": Form(
        read=read_sa_v,
        splits=("train", "val", "test"),
        default_split="val",
        rate_hz=24.0,
        about="many objects given by their first masks, every fourth frame annotated",
    ),
    "reason_seg": Form(
        read=read_reason_seg,
        splits=("train", "val", "test"),
        default_split="val",
        rate_hz=1.0,
        about="reasoning questions on images",
    ),
    "refcoco": Form(
        read=read_refcoco,
        splits=("train", "val", "testA", "testB"),
        default_split="val",
        rate_hz=1.0,
        about="referring expressions on images",
    ),
    "refcoco_plus": Form(
        read=read_refcoco_plus,
        splits=("train", "val", "testA", "testB"),
        default_split="val",
        rate_hz=1.0,
        about="the same without words of place",
    ),
    "refcocog": Form(
        read=read_refcocog,
        splits=("train", "val", "test"),
        default_split="val",
        rate_hz=1.0,
        about="longer referring expressions on images",
    ),
    "grefcoco": Form(
        read=read_grefcoco,
        splits=("train", "val", "testA", "testB"),
        default_split="val",
        rate_hz=1.0,
        about="several targets, or none, on images",
    ),
}


def read_dataset(
    root: Path,
    form: str,
    *,
    split: str = "",
    strict: bool = False,
    rate_hz: float | None = None,
    wants_frames: bool = True,
) -> Dataset:
    """Read a dataset: its episodes, what is wrong, and what had to be assumed.

    Args:
        root: the folder that docs/datasets.md names for the form.
        form: a key of `FORMS`.
        split: one of the form's; "" for its default.
        strict: raise the first problem instead of listing it and leaving out what it spoils.
        rate_hz: declared rate of every video, in (0, 1000]; None takes the dataset's.
        wants_frames: False reads a dataset without its folder of frames, too, where the masks tell
            their names and sizes: enough to score masks that were made elsewhere.

    Raises:
        ConfigError: an unknown form or split, or a rate that cannot be.
        DatasetError: a file without which nothing can be read; if strict, any problem.
    """
    if form not in FORMS:
        msg = f"dataset form {form!r} is not known, expected one of {', '.join(FORMS)}"
        raise ConfigError(msg)
    known = FORMS[form]
    split = split or known.default_split
    if split not in known.splits:
        msg = f"{form} has no split {split!r}, expected one of {', '.join(known.splits)}"
        raise ConfigError(msg)
    if rate_hz is not None and not 0 < rate_hz <= MAX_RATE_HZ:
        msg = f"rate_hz must be in (0, {MAX_RATE_HZ:.0f}], got {rate_hz}"
        raise ConfigError(msg)
    if not root.is_dir():
        raise refuse(root, "", f"is no folder, expected the root of a dataset of form {form}")
    log = ProblemLog(strict=strict)
    reading = Reading(
        root=root,
        split=split,
        rate_hz=known.rate_hz,
        rate_note=known.rate_note,
        wanted_rate_hz=rate_hz,
        log=log,
        wants_frames=wants_frames,
    )
    episodes = _distinct(known.read(reading), reading)
    if not episodes and not log.problems:
        log.report(root, "", f"has no episode in the split {split!r}")
    return Dataset(
        form=form,
        root=str(root),
        split=split,
        episodes=tuple(episodes),
        problems=tuple(log.problems),
        assumptions=tuple(log.assumptions),
    )


def _distinct(episodes: list[Episode], reading: Reading) -> list[Episode]:
    """Leave out all episodes of an id that is not unique."""
    counts = Counter(episode.id for episode in episodes)
    for name, count in counts.items():
        if count > 1:
            message = f"this id stands {count} times; none of them is used"
            reading.log.report(reading.root, name, message)
    return [episode for episode in episodes if counts[episode.id] == 1]
