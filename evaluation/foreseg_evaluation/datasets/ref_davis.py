# SPDX-License-Identifier: Apache-2.0
"""Ref-DAVIS17 in its two protocols, which are not comparable.

`ref_davis`: every expression on its own (as VISA and Sa2VA score it). `ref_davis_classic`: four
sets of expressions, one for each object of a video; `annotator_of` tells the set, and pixels of
value 255 are not judged. Either reads the usual conversion to Ref-YouTube-VOS' form; the classic
one also the published texts beside DAVIS. Does not know: scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from foreseg_evaluation.episode import Episode, PredictionPlace, Question, QuestionKind
from foreseg_evaluation.problems import DatasetError, refuse

from .davis import objects_of_first_map, read_sequences
from .entries import Entry, is_number, read_json, wrong
from .media import EpisodeMedia, RleMasklet, png_masklet, rle_masklet, size_of_rles
from .pictures import VOID
from .reading import (
    Reading,
    Video,
    expressions_of,
    make_episode,
    open_sequence,
    open_video,
    read_lines,
    whole,
)
from .ref_youtube_vos import meta_path, read_label_maps, referring_episode
from .restricted_pickle import read_plain_pickle

NUM_ANNOTATORS = 4  # two people, each for the first frame and for the whole video
_TEXTS = (  # file and encoding, by annotator
    ("Davis17_annot1.txt", "utf-8"),
    ("Davis17_annot1_full_video.txt", "utf-8"),
    ("Davis17_annot2.txt", "latin-1"),
    ("Davis17_annot2_full_video.txt", "latin-1"),
)
_LINE = re.compile(r'(\S+)\s+(\d+)\s+"(.*)"')
_MISSPELT = {  # in the texts: as DAVIS has it
    "clasic-car": "classic-car",
    "dog-scale": "dogs-scale",
    "motor-bike": "motorbike",
}
_Texts = dict[str, dict[str, dict[int, Entry]]]  # by sequence, object and annotator


def annotator_of(expression_id: str) -> int:
    """Tell which of the four sets an expression belongs to: its id is object * 4 + set."""
    return int(expression_id) % NUM_ANNOTATORS


def read_ref_davis(reading: Reading) -> list[Episode]:
    """Read a split for the protocol that scores each expression."""
    pickled = reading.root / reading.split / "mask_dict.pkl"
    if pickled.exists():
        return _read_pickled(reading, read_plain_pickle(pickled))
    return read_label_maps(reading, has_void=False)


def read_ref_davis_classic(reading: Reading) -> list[Episode]:
    """Read a split for the protocol of the four sets."""
    texts = reading.root / "davis_text_annotations"
    if texts.is_dir() and not meta_path(reading, reading.split).exists():
        return _read_texts(reading, texts)
    episodes = []
    for episode in read_label_maps(reading, has_void=True):
        if is_number(episode.expression_id):
            place = _official_place(episode.video, episode.expression_id)
            episodes.append(replace(episode, official_place=place))
        else:
            path = meta_path(reading, reading.split)
            key = f"videos/{episode.video}/expressions/{episode.expression_id}"
            reading.log.report(path, key, "expected a number (object * 4 + set) as id")
    return episodes


def _read_pickled(reading: Reading, masks: Entry) -> list[Episode]:
    """Masks by a number that runs over videos and expressions, both sorted as texts."""
    num_problems = len(reading.log.problems)
    meta = read_json(meta_path(reading, reading.split), reading.log)
    if len(reading.log.problems) != num_problems:
        raise wrong(
            meta, "has repeated keys, so that the numbers in mask_dict.pkl are not certain"
        )
    videos = sorted(meta["videos"].entries(), key=lambda item: item[0])
    episodes: list[Episode] = []
    count = 0
    for name, entry in reading.progress(videos):
        first, count = count, count + _num_expressions(entry)
        with reading.skipping():
            frames_root = reading.root / reading.split / "JPEGImages"
            size = partial(_size_of_number, masks, first)
            video = open_video(name, entry, frames_root, reading, size)
            episodes += _numbered_episodes(video, first, masks, reading)
    if count != len(list(masks.entries())):
        message = f"has {len(list(masks.entries()))} numbers, expected one for each of"
        reading.log.report(masks.file, "", f"{message} {count} expressions")
    return episodes


def _numbered_episodes(video: Video, first: int, masks: Entry, reading: Reading) -> list[Episode]:
    """The episodes of a video whose masks are numbered from `first` on."""
    expressions = sorted(expressions_of(video, reading), key=lambda item: item[0])
    found: dict[str, tuple[Entry, str, RleMasklet]] = {}
    for number, (expression_id, expression) in enumerate(expressions, first):
        with reading.skipping():
            row = _row(masks, number)
            size_wh = video.frames.size_wh
            masklet = rle_masklet(row.file, row.key, row.value, video.order, size_wh)
            object_id = expression["obj_id"].ident()
            found[expression_id] = (expression, object_id, masklet)
    others = {object_id: masklet for _, object_id, masklet in found.values()}
    episodes: list[Episode] = []
    for expression_id, (expression, object_id, masklet) in found.items():
        media = EpisodeMedia(frames=video.frames, masklets={**others, object_id: masklet})
        with reading.skipping():
            episodes.append(
                referring_episode(video, expression_id, expression, media, object_id, reading)
            )
    return episodes


def _size_of_number(masks: Entry, number: int) -> tuple[int, int]:
    row = _row(masks, number)
    size_wh = size_of_rles(row)
    if size_wh is None:
        raise wrong(row, "shows nothing, so that the size of the frames is not known")
    return size_wh


def _num_expressions(video: Entry) -> int:
    """How many numbers a video takes, also one that cannot be read."""
    try:
        return len(list(video["expressions"].entries()))
    except DatasetError:
        return 0


def _row(masks: Entry, number: int) -> Entry:
    """The masks of a number, which is a text in the published file, or an int."""
    found = masks.find(str(number))
    if found is None and isinstance(masks.value, dict):
        value = masks.value.get(number)
        found = None if value is None else Entry(file=masks.file, key=str(number), value=value)
    if found is None:
        raise wrong(masks, f"has no masks of the number {number}")
    return found


def _read_texts(reading: Reading, folder: Path) -> list[Episode]:
    """The published texts, with DAVIS beside them or around them."""
    davis = reading.root / "DAVIS" if (reading.root / "DAVIS").is_dir() else reading.root
    texts = _texts(folder, reading)
    split = "val" if reading.split == "valid" else reading.split
    episodes: list[Episode] = []
    for name in reading.progress(read_sequences(davis / "ImageSets/2017" / f"{split}.txt")):
        with reading.skipping():
            if name not in texts:
                raise refuse(folder, name, "has no expression in the four files")
            pictures = davis / "Annotations_unsupervised/480p" / name
            frames = open_sequence(davis / "JPEGImages/480p", name, pictures, reading)
            maps = png_masklet(pictures, frames)
            masklets = objects_of_first_map(maps)
            media = EpisodeMedia(frames=frames, masklets=masklets, voids=maps.with_label(VOID))
            for object_id in sorted({*masklets, *texts[name]}, key=int):
                for annotator in range(NUM_ANNOTATORS):
                    with reading.skipping():
                        text = _text_of(texts[name], object_id, annotator, folder / name)
                        episodes.append(
                            _text_episode(name, text, object_id, annotator, media, reading)
                        )
    return episodes


def _text_of(
    texts: Mapping[str, Mapping[int, Entry]], object_id: str, annotator: int, place: Path
) -> Entry:
    text = texts.get(object_id, {}).get(annotator)
    if text is None:
        file = place.parent / _TEXTS[annotator][0]
        raise refuse(file, f"{place.name}/{object_id}", "has no expression of this object")
    return text


def _text_episode(
    sequence: str,
    text: Entry,
    object_id: str,
    annotator: int,
    media: EpisodeMedia,
    reading: Reading,
) -> Episode:
    if object_id not in media.masklets:
        raise wrong(text, f"object {object_id!r} is none of {', '.join(media.masklets)}")
    everywhere = tuple(range(len(media.frames.names)))
    expression_id = str((int(object_id) - 1) * NUM_ANNOTATORS + annotator)
    episode = make_episode(
        sequence,
        expression_id,
        media=media,
        question=Question(text=text.text(), kind=QuestionKind.REFERRING),
        spans=whole(len(everywhere), (object_id,)),
        annotated=everywhere,
        scored=everywhere,
        rate_hz=reading.rate(),
    )
    return replace(episode, official_place=_official_place(sequence, expression_id))


def _official_place(sequence: str, expression_id: str) -> PredictionPlace:
    """One label map a frame for all objects of a set: `anno_SET/SEQUENCE/`."""
    folder = f"anno_{annotator_of(expression_id)}/{sequence}"
    return PredictionPlace(folder=folder, label=int(expression_id) // NUM_ANNOTATORS + 1)


def _texts(folder: Path, reading: Reading) -> _Texts:
    found: _Texts = {}
    for annotator, (file, encoding) in enumerate(_TEXTS):
        path = folder / file
        for number, line in enumerate(read_lines(path, encoding), start=1):
            with reading.skipping():
                match = _LINE.fullmatch(line)
                if match is None:
                    message = f'expected SEQUENCE OBJECT "EXPRESSION", got {line[:60]!r}'
                    raise refuse(path, f"line {number}", message)
                name, object_number, text = match.groups()
                sequence = _MISSPELT.get(name, name)
                entry = Entry(file=path, key=f"line {number}", value=text)
                by_set = found.setdefault(sequence, {}).setdefault(str(int(object_number)), {})
                if annotator in by_set:
                    raise wrong(entry, f"a second expression of object {object_number}")
                by_set[annotator] = entry
    return found
