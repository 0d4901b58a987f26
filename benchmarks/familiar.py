# SPDX-License-Identifier: Apache-2.0
"""How often the nano reasoner would answer about pictures: its own worlds', and others.

    .venv/bin/python benchmarks/familiar.py --bundle FOLDER --pictures FOLDER [FOLDER ...]

Each folder has videos or folders of images below it, such as a dataset's `JPEGImages`, or clips with `frames`. Windows of as many frames as the reasoner reads are taken evenly from each video; a row says of
how many of them the frames are near enough to those of its training.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from foreseg.errors import ForesegError
from foreseg.frames import U8Array
from foreseg.media.sources import frames_of, open_source
from foreseg.nano.bundle import CARD, FAMILIAR, NanoBundle, read_nano_bundle
from foreseg.nano.familiar import Familiarity, Strangeness, familiarity_from
from foreseg.nano.language_model import OnnxLanguageModel
from foreseg.reasoner.prompt_card import card_from_json

IMAGES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
WINDOWS = 4  # of a video, one after the other


def main() -> None:
    """Print a row for each folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="of a nano reasoner")
    parser.add_argument("--pictures", type=Path, nargs="+", required=True)
    parser.add_argument("--max-videos", type=int, default=0, help="of a folder; 0: all")
    options = parser.parse_args()
    for folder in options.pictures:
        if not folder.exists():
            parser.error(f"--pictures wants videos or folders of them, got {str(folder)!r}")
    try:
        bundle = read_nano_bundle(options.bundle)
    except ForesegError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    limits = bundle.manifest.familiar
    if limits is None:
        parser.exit(2, f"{parser.prog}: {options.bundle} answers about all pictures\n")
    print(f"the limits are a distance of {limits.distance:.2f}, a lean of {limits.lean:.2f}\n")
    print(
        "| folder | videos | windows | distance: 5 %, half, 95 % | lean: 5 %, half, 95 % | answered, % |"
    )
    print("|---|---|---|---|---|---|")
    for folder in options.pictures:
        videos = list(videos_in(folder))[: options.max_videos or None]
        found = [one for video in videos for one in strangeness(bundle, video)]
        if not found:
            print(f"| {folder.name} | 0 | 0 | | | |")
            continue
        share = 100 * np.mean([not limits.broken_by(one) for one in found])
        spreads = [
            ", ".join(f"{number:.2f}" for number in np.quantile(numbers, (0.05, 0.5, 0.95)))
            for numbers in ([one.distance for one in found], [one.lean for one in found])
        ]
        told = (folder.name, len(videos), len(found), *spreads, f"{share:.1f}")
        print(f"| {' | '.join(map(str, told))} |")


def videos_in(folder: Path) -> Iterator[Path]:
    """The path itself, if it is a file or has images; else all videos and such folders below it."""
    if folder.is_file() or any(path.suffix.lower() in IMAGES for path in folder.iterdir()):
        yield folder
        return
    for below in sorted(folder.iterdir()):
        is_video = below.suffix.lower() in VIDEOS
        if is_video or (below.is_dir() and below.name != "masks"):
            yield from videos_in(below)


def strangeness(bundle: NanoBundle, video: Path) -> list[Strangeness]:
    """Of each window."""
    card = card_from_json(bundle.files[CARD], str(CARD))
    model = OnnxLanguageModel(bundle, frame_pixels=card.frame_pixels, vision_cache_mb=0.0)
    channels = bundle.manifest.decoder.channels
    familiarity = familiarity_from(bundle.files[FAMILIAR], channels, FAMILIAR)
    with open_source(str(video)) as source:
        images = [frame.image for frame in frames_of(source)]
    return [
        strangeness_of(model, familiarity, [images[round(i)] for i in places])
        for places in windows_of(len(images), card.num_frames)
    ]


def windows_of(num_images: int, num_frames: int) -> list[Sequence[float]]:
    """Places of the frames of each window; of a short video one window of all of it."""
    count = max(1, min(WINDOWS, num_images // num_frames))
    edges = np.linspace(0, num_images, count + 1)
    pairs = itertools.pairwise(edges)
    return [list(np.linspace(a, b - 1, min(num_frames, num_images))) for a, b in pairs]


def strangeness_of(
    model: OnnxLanguageModel, familiarity: Familiarity, images: Sequence[U8Array]
) -> Strangeness:
    """Of one window."""
    looking = model.seen(images)
    while True:
        try:
            next(looking)
        except StopIteration as end:
            return familiarity.strangeness(end.value)


if __name__ == "__main__":
    main()
