# SPDX-License-Identifier: Apache-2.0
"""Ref-DAVIS17 as it is usually published: DAVIS' unsupervised task, once for each annotator.

The masks of one annotator's expressions become one label map a frame, and predicted rows are matched
to true objects by Hungarian assignment over mean J&F (davis2017-evaluation, `--task unsupervised`):
a mask on the wrong object of the same video still counts for that object. The official merge is
an argmax over soft masks with 0.1 for the background; here masks are hard, and the object with
the lower number is on top. Does not know: files, how masks came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from foreseg.masks import Mask, MaskRle, mask_from_rle

from .aggregates import mean_of
from .datasets import annotator_of
from .episode import Episode
from .metrics import boundary_f, region_similarity
from .report import OfficialTable
from .results import EpisodeResult

_F64 = NDArray[np.float64]


def unsupervised_table(
    results: Sequence[EpisodeResult], episodes: Mapping[str, Episode]
) -> OfficialTable:
    """Match and average each annotator's masks; videos with a failed expression are left out.

    Args:
        results: of the form `ref_davis_classic`.
        episodes: by id; their true masks are read again.
    """
    groups: dict[tuple[int, str], list[EpisodeResult]] = {}
    for result in results:
        key = (annotator_of(result.expression_id), result.video)
        groups.setdefault(key, []).append(result)
    objects: dict[int, list[tuple[float, float]]] = {}
    num_left_out = 0
    for (annotator, _), members in sorted(groups.items()):
        if all(member.is_scored for member in members):
            members.sort(key=lambda member: int(member.expression_id))
            objects.setdefault(annotator, []).extend(matched_objects(members, episodes))
        else:
            num_left_out += 1
    rows = []
    for annotator, scores in sorted(objects.items()):
        j, f = (100 * mean_of(score[i] for score in scores) for i in (0, 1))
        rows.append((f"annotator set {annotator}", ((j + f) / 2, j, f)))
    means = tuple(mean_of(values[i] for _, values in rows) for i in range(3))
    return OfficialTable(
        about="As davis2017-evaluation's unsupervised task, for each of the four sets of"
        f" expressions; {num_left_out} videos with a failed expression are left out.",
        columns=("J&F", "J", "F"),
        rows=(*rows, ("mean of the sets", means)),
    )


def matched_objects(
    members: Sequence[EpisodeResult], episodes: Mapping[str, Episode]
) -> list[tuple[float, float]]:
    """J and F of each true object of one video with the row that it is matched to, 0..1.

    Args:
        members: one result for each expression of one annotator, in the objects' order.
        episodes: by id.
    """
    from scipy.optimize import linear_sum_assignment

    episode = episodes[members[0].id]
    object_ids = sorted(episode.object_ids, key=int)
    num_rows = max(len(members), len(object_ids))  # missing rows are empty
    positions = members[0].positions
    j: _F64 = np.zeros((num_rows, len(object_ids), len(positions)))
    f: _F64 = np.zeros_like(j)
    for number, position in enumerate(positions):
        void = episode.media.void(position)
        masks = _exclusive(members, number, episode, num_rows)
        for column, object_id in enumerate(object_ids):
            truth = episode.media.mask(object_id, position)
            if truth is None:
                truth = np.zeros(episode.size_wh[::-1], dtype=np.bool_)
            for row, mask in enumerate(masks):
                j[row, column, number] = region_similarity(truth, mask, void)
                f[row, column, number] = boundary_f(truth, mask, void)
    mean_j, mean_f = j.mean(axis=2), f.mean(axis=2)
    rows, columns = linear_sum_assignment(-(mean_j + mean_f))
    return [(float(mean_j[r, c]), float(mean_f[r, c])) for r, c in zip(rows, columns, strict=True)]


def _exclusive(
    members: Sequence[EpisodeResult], number: int, episode: Episode, num_rows: int
) -> list[Mask]:
    """The rows' masks on one frame, each pixel in one row at most."""
    width, height = episode.size_wh
    taken: Mask = np.zeros((height, width), dtype=np.bool_)
    masks: list[Mask] = []
    for row in range(num_rows):
        counts = members[row].objects[0].masks[number] if row < len(members) else None
        mask = mask_from_rle(MaskRle(height=height, width=width, counts=counts or ""))
        masks.append(mask & ~taken)
        taken |= mask
    return masks
