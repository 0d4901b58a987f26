# SPDX-License-Identifier: Apache-2.0
"""What every run over a teacher has in common: its numbers, what is picked, and files that land whole.

Does not know what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foreseg.errors import ConfigError
from foreseg.language.openai_server import ServerSettings
from foreseg_evaluation.episode import Dataset, Episode
from foreseg_training.samples import Filtered, Sample, SampleDrawer

from .errands import Errand
from .journal import Journal
from .run import Tally, Teacher, is_done, run_errands

_RANGES = {
    "num_frames": (2, 64),
    "image_side_px": (32, 4096),
    "max_tokens": (16, 100_000),
    "temperature": (0, 10),
    "seed": (0, 2**32 - 1),
    "max_samples": (0, 10**9),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """Numbers of a run.

    Attributes:
        num_frames: shown to the teacher at most; 8, as Veason-R1's public code shows in its first stage.
        image_side_px: longest side of the frames as they are sent.
        max_tokens: of a reply.
        temperature: of the teacher; above 0, so that asking again may help.
        seed: draws keyframes and examples.
        max_samples: evenly picked from all; 0 = every one.
    """

    num_frames: int = 8
    image_side_px: int = 768
    max_tokens: int = 800
    temperature: float = 0.7
    seed: int = 0
    max_samples: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                msg = f"{name} wants {least:g} to {most:g}, got {value}"
                raise ConfigError(msg)

    def about(
        self, what: str, dataset: Dataset, settings: ServerSettings, words: str
    ) -> dict[str, Any]:
        """What must be equal for two runs to be one; `words` tells the prompt's apart."""
        return {
            "what": what,
            "dataset": str(Path(dataset.root).resolve()),
            "form": dataset.form,
            "split": dataset.split,
            "model": settings.model,
            "words": words,
            **{name: value for name, value in asdict(self).items() if name != "max_samples"},
        }


def ask_about(
    dataset: Dataset,
    journal: Journal,
    options: AskOptions,
    teacher: Teacher,
    errand_of: Callable[[Sample, Episode], Errand],
) -> tuple[Tally, Filtered]:
    """Ask about every sample of a dataset that the journal does not have; their labels are positions.

    Args:
        dataset: with questions and truth.
        journal: open.
        options: of the run.
        teacher: who is asked.
        errand_of: what to ask about a sample that was drawn of an episode.

    Raises:
        InputError: nobody answers.
    """
    drawer = SampleDrawer(num_frames=options.num_frames, label_offset=0)
    episodes, filtered = dataset.episodes, Filtered()
    numbers = picked(len(episodes), options.max_samples)
    todo = [number for number in numbers if not is_done(journal, episodes[number].id)]
    teacher.begin(len(todo))

    def errands() -> Iterator[Errand]:
        for number in todo:
            sample = drawer.one(episodes, number, options.seed, filtered)
            if sample is not None:
                yield errand_of(sample, episodes[number])

    return run_errands(errands(), journal, teacher), filtered


def picked(count: int, most: int) -> list[int]:
    """So many of `count` numbers, evenly; 0: all."""
    if not most or most >= count:
        return list(range(count))
    return [int(i * count / most) for i in range(most)]


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
