# SPDX-License-Identifier: Apache-2.0
"""Print how a tracker segments and follows objects, beside the baselines.

`python -m foreseg_evaluation.tracking_report --bundle nano held_out/ clip_folder ...`

Each folder is a clip (`frames/`, `masks/`), a folder of clips, or one of photographs (`photos/`,
`masks/`). Every object that the first annotated frame shows is prompted there, once in each form
of `--prompt` under each `--view`, and followed for `--num-frames` frames. The baselines start from
the true mask.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from foreseg.engines.load import load_bundle
from foreseg.errors import ForesegError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef
from foreseg.masks import mask_from_rle
from foreseg.tracker.base import Tracker, TrackKey
from foreseg.tracker.views import VIEWS, tracker_factory

from .absence import absence_score
from .clips import BoolArray, U8Array, read_clip, read_photo
from .metrics import region_similarity
from .prompt_forms import PromptForm, prompt_of
from .tracking import (
    Followed,
    Method,
    TrackingScore,
    repeat_ellipse,
    repeat_first_mask,
    score_method,
    warp_by_flow,
)

_KEY = TrackKey("object")
_STEP_NS = 33_000_000
_LEAST_PHOTO_SHARE = 0.003  # of a photograph: smaller objects are left out
_MOST_NAMED = 20  # of what is left out
_FORMS = tuple(form.value for form in PromptForm)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--bundle", default="nano", help="a bundle's folder, or 'nano'")
    parser.add_argument("--backend", default="cpu", help="what executes it; default: cpu")
    parser.add_argument(
        "--prompt", choices=_FORMS, action="append", help="may be repeated; default: box"
    )
    parser.add_argument(
        "--view",
        choices=VIEWS,
        action="append",
        help=f"as the setting tracker.view, one of these; may be repeated; default: {VIEWS[0]}",
    )
    parser.add_argument("--num-frames", type=int, default=20, help="after the first; 0 for all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(options.threads)
    bundle, backend, threads = options.bundle, options.backend, options.threads
    forms = [PromptForm(form) for form in options.prompt or ["box"]]
    try:
        with load_bundle(bundle, backend=backend, threads=threads) as opened:
            methods = standard_methods(
                {
                    _name(form, view): follow_with(tracker_factory(opened, view)(1), form)
                    for form in dict.fromkeys(forms)
                    for view in dict.fromkeys(options.view or VIEWS[:1])
                }
            )
            for folder in options.folders:
                sys.stdout.write(report(folder, methods, options.num_frames or None) + "\n")
    except (ForesegError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def standard_methods(trackers: Mapping[str, Method]) -> dict[str, Method]:
    """Put trackers beside the baselines."""
    return {
        **trackers,
        "repeat first mask": repeat_first_mask,
        "repeat ellipse in box": repeat_ellipse,
        "flow warp": warp_by_flow,
    }


def follow_with(tracker: Tracker, form: PromptForm = PromptForm.BOX) -> Method:
    """Make a method of a tracker: prompt from the first mask in a form, then track."""

    def follow(images: Sequence[U8Array], first: BoolArray) -> Followed:
        tracker.reset()
        frames = (_frame(i, image) for i, image in enumerate(images))
        results = [tracker.prompt(next(frames), _KEY, prompt_of(form, first))]
        results += [tracker.track(frame, [_KEY]).objects[0] for frame in frames]
        return Followed(
            masks=[mask_from_rle(result.mask) for result in results],
            object_logits=[result.object_logit for result in results],
        )

    return follow


def report(folder: Path, methods: Mapping[str, Method], num_frames: int | None) -> str:
    """Score every object under a folder and format its tables, and what had to be left out.

    Raises:
        OSError: nothing can be read.
        ValueError: there is no object to follow.
    """
    if (folder / "photos").is_dir():
        return _photo_report(folder, methods)
    scores: dict[str, list[TrackingScore]] = {name: [] for name in methods}
    left_out: list[str] = []
    for clip in tqdm(find_clips(folder), desc=folder.name, disable=None):
        try:
            objects = read_clip(clip, num_frames=None if num_frames is None else num_frames + 1)
        except (OSError, ValueError) as error:
            left_out.append(f"{clip.name}: {error}")
            continue
        if not objects:
            left_out.append(f"{clip.name}: its first mask is empty")
        elif all(mask is None for mask in objects[0].masks[1:]):
            left_out.append(f"{clip.name}: only its first frame has a mask")
            objects = []
        for one in objects:
            for name, method in methods.items():
                scores[name].append(score_method(method, one))
    if not all(scores.values()):
        msg = (
            f"{folder} holds no clip: one has frames/ and masks/, photographs photos/ and masks/"
            + "".join(f"; {line}" for line in left_out[:1])
        )
        raise ValueError(msg)
    return format_table(folder.name, scores) + _left_out_lines(left_out)


def find_clips(folder: Path) -> list[Path]:
    """The folder, if it is a clip, or every clip in it, sorted by name."""
    clips = [folder] if (folder / "frames").is_dir() else sorted(folder.iterdir())
    return [clip for clip in clips if (clip / "frames").is_dir()]


def format_table(title: str, scores: Mapping[str, Sequence[TrackingScore]]) -> str:
    """Format means in percent over all objects, over those that hide or leave, and absence."""
    first = next(iter(scores.values()))
    hidden = [score.is_occluded for score in first]
    lines = [
        f"### {title}: {len(first)} objects, {sum(hidden)} of them occluded or away at some time",
        "| method | prompted J | J&F | J | F | J&F, occluded objects |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in scores.items():
        columns = [
            [row.prompted_j for row in rows],
            [row.j_and_f for row in rows],
            [row.tracked_j for row in rows],
            [row.tracked_f for row in rows],
            [row.j_and_f for row in rows if row.is_occluded],
        ]
        lines.append(f"| {name} | " + " | ".join(map(_mean_percent, columns)) + " |")
    return "\n".join([*lines, *_absence_lines(scores)]) + "\n"


def _absence_lines(scores: Mapping[str, Sequence[TrackingScore]]) -> Iterator[str]:
    """A second table, of those methods that say whether an object is there, if any is away."""
    told = {name: [p for row in rows for p in row.presence] for name, rows in scores.items()}
    results = {
        name: absence_score(*zip(*pairs, strict=True)) for name, pairs in told.items() if pairs
    }
    if not any(result.num_absent for result in results.values()):
        return
    yield ""
    yield "| method | object-frames absent / visible | AUROC | absent found | visible lost |"
    yield "|---|---|---|---|---|"
    for name, result in results.items():
        yield (
            f"| {name} | {result.num_absent} / {result.num_visible} | {result.auroc:.3f} |"
            f" {100 * result.absent_found:.1f} | {100 * result.visible_lost:.1f} |"
        )


def _photo_report(folder: Path, methods: Mapping[str, Method]) -> str:
    """Prompt every object of every photograph, and say how well each is segmented."""
    sources: dict[str, dict[str, list[float]]] = {}
    left_out: list[str] = []
    paths = sorted(p for p in (folder / "photos").glob("*.jpg") if p.name[0] != ".")
    for path in tqdm(paths, desc=folder.name, disable=None):
        source = path.stem.split("_", maxsplit=1)[0]
        try:
            image, masks = read_photo(path, folder / "masks" / f"{path.stem}.png")
        except (OSError, ValueError) as error:
            left_out.append(f"{path.name}: {error}")
            continue
        if not masks:
            left_out.append(f"{path.name}: its mask is empty")
        for mask in masks:
            if mask.mean() < _LEAST_PHOTO_SHARE:
                continue
            for name, method in methods.items():
                if method in {repeat_first_mask, warp_by_flow}:
                    continue  # on a single picture the truth itself
                j = region_similarity(mask, method([image], mask).masks[0])
                sources.setdefault(source, {}).setdefault(name, []).append(j)
    if not sources:
        msg = f"no object in {folder}: expected photos/NAME.jpg and masks/NAME.png" + "".join(
            f"; {line}" for line in left_out[:1]
        )
        raise ValueError(msg)
    names = list(next(iter(sources.values())))
    counts = {source: len(rows[names[0]]) for source, rows in sources.items()}
    lines = [
        f"### {folder.name}: {sum(counts.values())} objects in photographs, J on the prompted frame",
        "| method | all | " + " | ".join(f"{s} ({n})" for s, n in counts.items()) + " |",
        "|---" * (2 + len(counts)) + "|",
    ]
    for name in names:
        columns = [[j for rows in sources.values() for j in rows[name]]]
        columns += [rows[name] for rows in sources.values()]
        lines.append(f"| {name} | " + " | ".join(map(_mean_percent, columns)) + " |")
    return "\n".join(lines) + "\n" + _left_out_lines(left_out)


def _left_out_lines(left_out: Sequence[str]) -> str:
    """What could not be used: counted, the first of it named with the reason."""
    if not left_out:
        return ""
    lines = ["", f"Left out, {len(left_out)}:", *(f"- {line}" for line in left_out[:_MOST_NAMED])]
    if len(left_out) > _MOST_NAMED:
        lines.append(f"- and {len(left_out) - _MOST_NAMED} more")
    return "\n".join(lines) + "\n"


def _name(form: PromptForm, view: str) -> str:
    return f"tracker, {form.value}" + ("" if view == VIEWS[0] else f", {view}")


def _mean_percent(values: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(values):.1f}" if values else "-"


def _frame(index: int, image: U8Array) -> Frame:
    height, width = image.shape[:2]
    ref = FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(index),
        epoch=0,
        stamp_ns=index * _STEP_NS,
        received_ns=index * _STEP_NS,
        size_wh=(width, height),
    )
    return Frame(ref=ref, image=image)


if __name__ == "__main__":
    main()
