# SPDX-License-Identifier: Apache-2.0
"""What `foreseg run` is pointed at, read from words and mask files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foreseg.commands.pointing import box_from_words, prompts_from_words
from foreseg.errors import InputError
from foreseg.masks import mask_from_rle
from foreseg.media.sinks import write_palette_png
from foreseg.prompts import PointLabel

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")


def test_boxes_are_read_with_and_without_a_name() -> None:
    box = box_from_words("1,2.5,30,40@7", 3)
    assert (box.frame, box.object_id) == (7, "box-3")
    assert box.prompt.box is not None
    assert tuple(box.prompt.box) == (1, 2.5, 30, 40)
    assert box_from_words("1,2,3,4@0:left: mug", 1).object_id == "left: mug"
    for words in ("", "1,2,3,4", "1,2,3,4@-1", "1,2,nan,4@0", "1,2,3,4,5@0"):
        with pytest.raises(InputError, match="a box wants"):
            box_from_words(words, 1)


def test_what_shares_name_and_frame_is_one_prompt() -> None:
    mug, other, later = prompts_from_words(
        ["1,2,30,40@0:mug"], ["5,6@0:mug", "7,8@0", "9,9@3:mug"], ["2,2@0:mug"]
    )
    assert mug.object_id == "mug"
    assert mug.prompt.box is not None
    assert [(p.x, p.y, p.label) for p in mug.prompt.points] == [
        (5, 6, PointLabel.FOREGROUND),
        (2, 2, PointLabel.BACKGROUND),
    ]
    assert mug.words == "--box 1,2,30,40@0:mug --point 5,6@0:mug --not-point 2,2@0:mug"
    assert (other.object_id, other.prompt.box, len(other.prompt.points)) == ("point-2", None, 1)
    assert (later.object_id, later.frame) == ("mug", 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": ["1@0"]}, "a point wants x,y@frame"),
        ({"points": ["1,2"]}, "a point wants"),
        ({"not_points": ["1,2@0"]}, "with the name of a box or a point"),
        ({"not_points": ["1,2@0:mug"]}, "says only where object 'mug' is not"),
        ({"boxes": ["1,1,2,2@0:a", "3,3,4,4@0:a"]}, "has on frame 0 two boxes"),
        ({"masks": ["@0"]}, "a mask wants FILE@frame"),
        ({"masks": ["nowhere.png@0"]}, "nowhere.png is not there"),
    ],
)
def test_what_is_no_prompt_is_said(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prompts_from_words(**given)


def test_a_mask_file_gives_an_object_for_each_colour(tmp_path: Path) -> None:
    labels = np.zeros((8, 10), np.uint8)
    labels[1:3, 1:4] = 2
    labels[4:7, 5:9] = 7
    write_palette_png(tmp_path / "a@b.png", labels)
    two, seven = prompts_from_words(masks=[f"{tmp_path}/a@b.png@4:cup"])
    assert [one.object_id for one in (two, seven)] == ["cup-2", "cup-7"]
    assert two.frame == 4
    assert seven.prompt.mask is not None
    assert np.array_equal(mask_from_rle(seven.prompt.mask), labels == 7)

    cv2.imwrite(str(tmp_path / "grey.png"), (labels == 7).astype(np.uint8) * 255)
    (white,) = prompts_from_words(masks=[f"{tmp_path}/grey.png@0"])
    assert white.object_id == "mask-1"
    assert white.prompt.mask == seven.prompt.mask
    with pytest.raises(InputError, match="a mask and another prompt"):
        prompts_from_words(points=["1,1@0:a"], masks=[f"{tmp_path}/grey.png@0:a"])


def test_pictures_that_are_no_masks_are_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((8, 8), np.uint8))
    cv2.imwrite(str(tmp_path / "soft.png"), np.arange(256, dtype=np.uint8).reshape(16, 16))
    (tmp_path / "text.png").write_text("no picture", "utf-8")
    for name, message in (
        ("black.png", "nothing else"), ("soft.png", "has 255 colours"), ("text.png", "is none"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            prompts_from_words(masks=[f"{tmp_path / name}@0"])
