# SPDX-License-Identifier: Apache-2.0
"""Predictions made elsewhere, in the benchmarks' own forms.

- a folder of PNGs: `<video>/<expression>/<frame>.png`, any nonzero pixel is the target, or where
  the benchmark's own evaluator looks (`Episode.official_place`); for objects given by first masks
  `<video>/<frame>.png` with the object's number as index (DAVIS), or
  `<video>/<object>/<frame>.png` (SA-V);
- a JSON file `{video: {expression: {"prediction_masks": [run-length mask per frame]}}}`.

What is missing fails its episode, and is never scored as empty. Does not know: scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from foreseg.errors import InputError
from foreseg.masks import Mask, MaskRle, mask_from_rle, rle_from_mask

from .clips import VOID, read_labels
from .episode import Episode
from .prediction import Prediction
from .problems import refuse
from .results import TARGET


class PredictionFiles:
    """A folder of PNGs or a JSON file, opened once.

    Raises:
        DatasetError: neither of them, or broken JSON.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._masks: Mapping[str, object] | None = None
        if path.is_dir():
            return
        try:
            masks = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            message = f"expected a folder of PNGs or a JSON file of masks ({error})"
            raise refuse(path, "", message) from error
        if not isinstance(masks, dict):
            raise refuse(path, "", f"expected an object by video, got {type(masks).__name__}")
        self._masks = masks

    def predict(self, episode: Episode) -> Prediction:
        """Read the masks of an episode's scored positions.

        Raises:
            DatasetError: a mask that is missing, unreadable or of another size.
        """
        if self._masks is not None:
            return Prediction(masks={TARGET: self._from_json(episode)})
        if episode.question is not None:
            return Prediction(masks={TARGET: self._from_official(episode)})
        folder = self._path / episode.video
        per_object = {i: folder / i for i in episode.object_ids}
        if all(one.is_dir() for one in per_object.values()):
            return Prediction(
                masks={i: self._from_pngs(one, episode) for i, one in per_object.items()}
            )
        return Prediction(masks=self._from_palette(folder, episode))

    def _from_official(self, episode: Episode) -> dict[int, MaskRle]:
        place, plain = episode.official_place, f"{episode.video}/{episode.expression_id}"
        if place is not None and (self._path / place.folder).is_dir():
            return self._from_pngs(self._path / place.folder, episode, place.label)
        if place is not None and not (self._path / plain).is_dir():
            message = f"expected masks in {place.folder}/, or in {plain}/"
            raise refuse(self._path, episode.id, message)
        return self._from_pngs(self._path / plain, episode)

    def _from_json(self, episode: Episode) -> dict[int, MaskRle]:
        assert self._masks is not None  # noqa: S101 (the caller looked)
        key = f"{episode.video}/{episode.expression_id}"
        rows: object = self._masks
        for name in (episode.video, episode.expression_id, "prediction_masks"):
            if not isinstance(rows, dict) or name not in rows:
                raise refuse(self._path, key, "no prediction_masks here")
            rows = rows[name]
        if not isinstance(rows, list) or len(rows) != episode.num_frames:
            found = len(rows) if isinstance(rows, list) else type(rows).__name__
            message = f"expected a list of {episode.num_frames} masks, got {found}"
            raise refuse(self._path, key, message)
        return {i: self._rle(rows[i], f"{key}/{i}", episode) for i in episode.scored}

    def _rle(self, value: object, key: str, episode: Episode) -> MaskRle:
        width, height = episode.size_wh
        if value is None:
            return MaskRle(height=height, width=width, counts="")
        if not isinstance(value, dict) or not isinstance(value.get("counts"), str):
            raise refuse(self._path, key, "expected a run-length mask with size and counts")
        if value.get("size") != [height, width]:
            message = f"expected a mask of {[height, width]}, got {value.get('size')}"
            raise refuse(self._path, key, message)
        rle = MaskRle(height=height, width=width, counts=value["counts"])
        try:
            mask_from_rle(rle)
        except InputError as error:
            raise refuse(self._path, key, f"no run-length mask ({error})") from error
        return rle

    def _from_pngs(
        self, folder: Path, episode: Episode, label: int | None = None
    ) -> dict[int, MaskRle]:
        masks = {}
        for position in episode.scored:
            labels = self._png(folder, position, episode)
            masks[position] = rle_from_mask(labels > 0 if label is None else labels == label)
        return masks

    def _from_palette(self, folder: Path, episode: Episode) -> dict[str, dict[int, MaskRle]]:
        masks: dict[str, dict[int, MaskRle]] = {i: {} for i in episode.object_ids}
        for position in episode.scored:
            labels = self._png(folder, position, episode)
            for object_id in episode.object_ids:
                own: Mask = labels == int(object_id)
                if len(masks) == 1 and not own.any():  # the only object, drawn in black and white
                    own = labels == VOID
                masks[object_id][position] = rle_from_mask(own)
        return masks

    def _png(self, folder: Path, position: int, episode: Episode) -> np.ndarray:
        path = folder / f"{episode.frame_names[position]}.png"
        if not path.is_file():
            raise refuse(path, "", "no predicted mask here")
        try:
            labels = read_labels(path)
        except (OSError, ValueError, cv2.error) as error:
            raise refuse(path, "", f"no readable PNG ({error})") from error
        if labels.shape != episode.size_wh[::-1]:
            message = f"expected a mask of {episode.size_wh[::-1]}, got {labels.shape}"
            raise refuse(path, "", message)
        return labels
