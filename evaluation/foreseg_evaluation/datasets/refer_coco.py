# SPDX-License-Identifier: Apache-2.0
"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: one episode for each sentence about an image.

Refs come from a pickle of plain data, or from JSON (gRefCOCO, where a sentence may name several
objects, or none). Objects have COCO's annotation ids. Does not know: scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from foreseg.errors import InputError
from foreseg.masks import Mask
from foreseg_evaluation.episode import Episode, Question, QuestionKind
from foreseg_evaluation.problems import refuse

from .entries import Entry, checked_name, read_json, size_wh_of, wrong
from .media import AbsentFrames, EpisodeMedia, FrameFiles, Frames
from .pictures import picture_names
from .polygons import MAX_PX, are_corners, mask_from_polygons
from .reading import Reading, make_episode, whole
from .restricted_pickle import read_plain_pickle
from .rle import counts_of, mask_from_counts

IMAGES = "images/mscoco/images/train2014"
NO_TARGET = "-1"


def read_refcoco(reading: Reading) -> list[Episode]:
    """Read a split of RefCOCO (UNC)."""
    return _read(reading, "refcoco", "refs(unc).p")


def read_refcoco_plus(reading: Reading) -> list[Episode]:
    """Read a split of RefCOCO+ (UNC)."""
    return _read(reading, "refcoco+", "refs(unc).p")


def read_refcocog(reading: Reading) -> list[Episode]:
    """Read a split of RefCOCOg: UMD's, or Google's where only that is there."""
    folder = reading.root / "refcocog"
    if not (folder / "refs(umd).p").exists() and (folder / "refs(google).p").exists():
        reading.log.assume("refs(umd).p is not there: the split is Google's")
        return _read(reading, "refcocog", "refs(google).p")
    return _read(reading, "refcocog", "refs(umd).p")


def read_grefcoco(reading: Reading) -> list[Episode]:
    """Read a split of gRefCOCO."""
    return _read(reading, "grefcoco", "grefs(unc).json")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _CocoMasklet:
    """The mask of an annotation on its only frame: polygons, or run lengths for crowds."""

    entry: Entry
    size_wh: tuple[int, int]

    def mask(self, position: int) -> Mask:
        """Rasterise the mask (H, W)."""
        assert position == 0  # noqa: S101 (one frame; `EpisodeMedia` looked)
        shape = self.entry["segmentation"]
        try:
            if isinstance(shape.value, dict):
                return mask_from_counts(counts_of(shape.value, self.size_wh), self.size_wh)
            return mask_from_polygons(_polygons(shape), self.size_wh)
        except InputError as error:
            raise wrong(shape, str(error)) from error


def _polygons(shape: Entry) -> Iterator[list[float]]:
    for _, polygon in shape.entries():
        numbers = [entry.number() for _, entry in polygon.entries()]
        if len(numbers) % 2 or len(numbers) < 6 or not are_corners(numbers):
            message = f"expected x, y of three or more corners within {MAX_PX:.0f} pixels"
            raise wrong(polygon, f"{message}, got {len(numbers)} numbers")
        yield numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coco:
    """What instances.json and the folder of images hold."""

    images: Mapping[str, Entry]
    annotations: Mapping[str, Entry]
    folder: Path
    files: frozenset[str] | None  # None: there are no images

    def frames(self, image_id: str, place: Entry) -> Frames:
        """Look up an image."""
        if image_id not in self.images:
            raise wrong(place, f"image {image_id!r} is not in instances.json")
        image = self.images[image_id]
        file = checked_name(image["file_name"].text(), image)
        if self.files is None:
            return AbsentFrames(
                folder=self.folder, names=(Path(file).stem,), size_wh=size_wh_of(image)
            )
        if file not in self.files:
            raise refuse(self.folder / file, "", f"is missing (image {image_id})")
        return FrameFiles(
            folder=self.folder,
            files=(file,),
            names=(Path(file).stem,),
            size_wh=size_wh_of(image),
        )

    def masklet(self, name: str, image_id: str, place: Entry) -> _CocoMasklet:
        """Look up an annotation of an image."""
        if name not in self.annotations:
            raise wrong(place, f"annotation {name!r} is not in instances.json")
        entry, image = self.annotations[name], self.images[image_id]
        if entry["image_id"].ident() != image_id:
            raise wrong(place, f"annotation {name!r} is of another image")
        if not isinstance(entry["segmentation"].value, (list, dict)):
            raise wrong(entry["segmentation"], "expected polygons or an RLE")
        return _CocoMasklet(entry=entry, size_wh=size_wh_of(image))


def _read(reading: Reading, name: str, refs_file: str) -> list[Episode]:
    path = reading.root / name / refs_file
    is_json = path.suffix == ".json"
    refs = read_json(path, reading.log) if is_json else read_plain_pickle(path)
    refs.array()
    coco = _open_coco(reading, name)
    of_image: dict[str, dict[str, _CocoMasklet]] = {}  # what refs name, by image
    episodes: list[Episode] = []
    for _, ref in reading.progress(list(refs.entries())):
        with reading.skipping():
            if ref["split"].text() != reading.split:
                continue
            image_id = ref["image_id"].ident()
            frames = coco.frames(image_id, ref)
            ids = tuple(i for i in ref["ann_id"].idents() if i != NO_TARGET)
            masklets = of_image.setdefault(image_id, {})
            masklets.update({i: coco.masklet(i, image_id, ref) for i in ids})
            media = EpisodeMedia(frames=frames, masklets=masklets)
            for _, sentence in ref["sentences"].entries():
                with reading.skipping():
                    episodes.append(_episode(sentence, ids, media, reading))
    return episodes


def _open_coco(reading: Reading, name: str) -> _Coco:
    instances = read_json(reading.root / name / "instances.json", reading.log)
    folder = reading.root / IMAGES
    return _Coco(
        images=_by_id(instances["images"], reading),
        annotations=_by_id(instances["annotations"], reading),
        folder=folder,
        files=(frozenset(picture_names(folder).values()) if reading.has_frames(folder) else None),
    )


def _by_id(listed: Entry, reading: Reading) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for _, entry in listed.entries():
        with reading.skipping():
            name = entry["id"].ident()
            if name in found:
                raise wrong(entry, f"id {name} stands twice; the first is used")
            found[name] = entry
    return found


def _episode(
    sentence: Entry, ids: tuple[str, ...], media: EpisodeMedia, reading: Reading
) -> Episode:
    return make_episode(
        media.frames.names[0],
        sentence["sent_id"].ident(),
        media=media,
        question=Question(
            text=sentence["sent"].text(),
            kind=QuestionKind.REFERRING if ids else QuestionKind.NO_TARGET,
        ),
        spans=whole(1, ids),
        annotated=(0,),
        scored=(0,),
        rate_hz=reading.rate(),
    )
