# SPDX-License-Identifier: Apache-2.0
"""How a model that segments is decoded: what its publisher did, as `seg.json` says it.

A head that was trained with one choice draws something else with another, and nothing tells so.
Does not know models or files beyond that record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from foreseg.engines.fields import Fields
from foreseg.errors import ConfigError
from foreseg_torch.vlm.loading import Precision

MAX_PADDING_TOKENS = 16
MAX_STOP_STRINGS = 16


class MaskChoice(Enum):
    """Which of SAM2's four mask tokens is the mask."""

    FIRST = "first"  # the one for an unambiguous prompt
    BEST_OF_THREE = "best_of_three"  # of the three others the one with the highest predicted IoU


class FrameResize(Enum):
    """How a frame becomes SAM2's square."""

    BILINEAR = "bilinear"  # with antialiasing, in float
    BICUBIC = "bicubic"  # with antialiasing, back to 8 bits, as PIL resizes


class StatePosition(Enum):
    """Whose state the token's is."""

    READS = "reads"  # the position that reads [SEG]: Sa2VA
    PREDICTS = "predicts"  # the one before, which predicts it: LISA, VISA's public code


@dataclass(frozen=True, slots=True, kw_only=True)
class SegDecode:
    """The choices; the defaults are those of folders that were trained here."""

    num_padding_tokens: int = 0  # SAM2's `not_a_point` before the projected state
    mask_choice: MaskChoice = MaskChoice.FIRST
    frame_resize: FrameResize = FrameResize.BILINEAR
    state_position: StatePosition = StatePosition.READS
    forces_token: bool = True  # False: a completion without [SEG] means no target
    stop_strings: tuple[str, ...] = ()  # text that ends a completion, beside the end tokens
    precision: Precision = Precision.BF16  # of the language model, unless it is stored otherwise

    def __post_init__(self) -> None:
        if not 0 <= self.num_padding_tokens <= MAX_PADDING_TOKENS:
            msg = (
                f"num_padding_tokens wants 0 to {MAX_PADDING_TOKENS}, got"
                f" {self.num_padding_tokens}"
            )
            raise ConfigError(msg)
        if len(self.stop_strings) > MAX_STOP_STRINGS or not all(self.stop_strings):
            msg = (
                f"stop_strings wants at most {MAX_STOP_STRINGS} texts, none of them empty, got"
                f" {self.stop_strings!r:.60}"
            )
            raise ConfigError(msg)

    def as_record(self) -> dict[str, object]:
        """As it stands in `seg.json`."""
        return {
            "num_padding_tokens": self.num_padding_tokens,
            "mask_choice": self.mask_choice.value,
            "frame_resize": self.frame_resize.value,
            "state_position": self.state_position.value,
            "forces_token": self.forces_token,
            "stop_strings": list(self.stop_strings),
            "precision": self.precision.value,
        }


# From two padding points without a box, `multimask_output` without points, PIL's default resize
# and `get_seg_hidden_states` of Sa2VA's public code, the same in all its variants.
SA2VA_DECODE = SegDecode(
    num_padding_tokens=2,
    mask_choice=MaskChoice.BEST_OF_THREE,
    frame_resize=FrameResize.BICUBIC,
    forces_token=False,
)


def decode_from_fields(fields: Fields) -> SegDecode:
    """What the record says.

    Raises:
        EngineError: a choice that this version does not know, or a number that cannot be.
    """
    stops = fields.items("stop_strings")
    if not all(isinstance(text, str) for text in stops):
        fields.refuse(f"wants texts in 'stop_strings', got {stops!r:.60}")
    try:
        return SegDecode(
            num_padding_tokens=fields.integer("num_padding_tokens"),
            mask_choice=MaskChoice(_known(fields, "mask_choice", _MASK_CHOICES)),
            frame_resize=FrameResize(_known(fields, "frame_resize", _RESIZES)),
            state_position=StatePosition(_known(fields, "state_position", _POSITIONS)),
            forces_token=fields.flag("forces_token"),
            stop_strings=tuple(str(text) for text in stops),
            precision=Precision(_known(fields, "precision", _PRECISIONS)),
        )
    except ConfigError as error:
        fields.refuse(str(error))


_MASK_CHOICES: Mapping[str, object] = {choice.value: choice for choice in MaskChoice}
_RESIZES: Mapping[str, object] = {resize.value: resize for resize in FrameResize}
_POSITIONS: Mapping[str, object] = {position.value: position for position in StatePosition}
_PRECISIONS: Mapping[str, object] = {precision.value: precision for precision in Precision}


def _known(fields: Fields, name: str, known: Mapping[str, object]) -> str:
    value = fields.text(name)
    if value not in known:
        fields.refuse(
            f"wants one of {', '.join(known)} in {name!r}, got {value!r:.60}: upgrade foreseg"
        )
    return value
