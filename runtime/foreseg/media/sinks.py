# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind: an overlay video, images, palette PNGs, contact sheets.

Images come in as (H, W, 3) uint8 RGB (`overlay` draws on them). Knows nothing of pipelines or
messages. OpenCV is imported when something is written.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from foreseg.errors import ConfigError, InputError, StreamError
from foreseg.frames import U8Array
from foreseg.media.closing import Closing
from foreseg.media.pen import PANEL, WHITE, Pen, import_cv2
from foreseg.tracker.base import LabelMap

MAX_CAPTION_LINES = 2  # of a cell of a contact sheet
PALETTE_SIZE = 256


class OverlayVideoWriter(Closing):
    """An mp4 (MPEG-4 part 2, which OpenCV's wheels can write) of frames of one size.

    The first frame sets the size; later ones of another size are fitted into it with borders.

    Raises:
        ConfigError: for a rate that cannot be.
        StreamError: on the first frame, if the file cannot be written.
    """

    def __init__(self, path: Path, rate_hz: float) -> None:
        if not math.isfinite(rate_hz) or rate_hz <= 0:
            msg = f"a video wants a rate above 0 Hz, got {rate_hz}"
            raise ConfigError(msg)
        self._cv2 = import_cv2("writing video")
        self._path = path
        self._rate_hz = rate_hz
        self._writer: _Writer | None = None
        self._size_wh = (0, 0)
        self.num_frames = 0

    def write(self, image: U8Array) -> None:
        """Append one RGB frame."""
        if self._writer is None:
            height, width = image.shape[:2]
            self._size_wh = (width + width % 2, height + height % 2)  # the codec wants even sizes
            self._writer = self._open()
        fitted = image if image.shape[1::-1] == self._size_wh else _fitted(image, self._size_wh)
        self._writer.write(self._cv2.cvtColor(fitted, self._cv2.COLOR_RGB2BGR))
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file; nothing is written if there was no frame."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _open(self) -> _Writer:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        codec = self._cv2.VideoWriter_fourcc(*"mp4v")
        writer: _Writer = self._cv2.VideoWriter(
            str(self._path), codec, self._rate_hz, self._size_wh
        )
        if not writer.isOpened():
            msg = f"cannot write a video to {self._path}: is the folder writable, the suffix .mp4?"
            raise StreamError(msg)
        return writer


def write_image(path: Path, image: U8Array) -> None:
    """Write RGB as PNG or JPEG, by the suffix.

    Raises:
        StreamError: if it cannot be written.
    """
    cv2 = import_cv2("writing images")
    if not cv2.haveImageWriter(path.name):
        msg = f"cannot encode {path.name}: expected a suffix such as .png or .jpg"
        raise StreamError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())


def write_palette_png(path: Path, label_map: LabelMap) -> None:
    """Write a label map as DAVIS and VOC do: an indexed PNG whose values are the labels.

    Raises:
        InputError: if it has labels above 255, which an indexed PNG cannot hold.
    """
    if label_map.ndim != 2 or not label_map.size or label_map.max() >= PALETTE_SIZE:  # noqa: PLR2004
        msg = (
            f"a palette PNG wants a label map (H, W) with labels up to {PALETTE_SIZE - 1},"
            f" got {label_map.shape} up to {label_map.max(initial=0)}"
        )
        raise InputError(msg)
    height, width = label_map.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # a filter byte of 0 before each row
    rows[:, 1:] = label_map
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, indexed
    chunks = (
        (b"IHDR", header),
        (b"PLTE", voc_palette().tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks:
            checksum = zlib.crc32(kind + data)
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))


def voc_palette() -> U8Array:
    """The 256 colours (256, 3) that DAVIS and VOC use: the label's bits, dealt out in turn."""
    palette = np.zeros((PALETTE_SIZE, 3), dtype=np.uint8)
    for label in range(PALETTE_SIZE):
        for bit in range(8):
            palette[label, bit % 3] |= ((label >> bit) & 1) << (7 - bit // 3)
    return palette


def contact_sheet(
    cells: Sequence[tuple[U8Array, str]], *, columns: int = 3, cell_width: int = 480
) -> U8Array:
    """Frames in a grid, each with a caption below; cells take the first frame's aspect.

    Raises:
        InputError: without cells, or for columns or a width below 1.
    """
    if not cells or columns < 1 or cell_width < 1:
        msg = (
            "a contact sheet wants at least one frame, column and pixel,"
            f" got {len(cells)} frames, {columns} columns, cells of {cell_width} px"
        )
        raise InputError(msg)
    height, width = cells[0][0].shape[:2]
    cell_height = max(1, round(cell_width * height / width))
    text_px = max(11, cell_width // 28)
    gap = max(4, cell_width // 60)
    columns = min(columns, len(cells))
    num_rows = -(-len(cells) // columns)
    measure = Pen(np.zeros((1, 1, 3), dtype=np.uint8), text_px=text_px)
    captions = [measure.wrapped(text, cell_width - 4, MAX_CAPTION_LINES) for _, text in cells]
    num_lines = max(1, *(len(lines) for lines in captions))
    caption_px = num_lines * measure.line_px + round(text_px * 0.65)
    shape = (
        gap + num_rows * (cell_height + caption_px + gap),
        gap + columns * (cell_width + gap),
        3,
    )
    sheet = np.full(shape, PANEL, dtype=np.uint8)
    pen = Pen(sheet, text_px=text_px)
    for i, (image, _) in enumerate(cells):
        x = gap + i % columns * (cell_width + gap)
        y = gap + i // columns * (cell_height + caption_px + gap)
        sheet[y : y + cell_height, x : x + cell_width] = _fitted(image, (cell_width, cell_height))
        for row, line in enumerate(captions[i]):
            top = y + cell_height + round(text_px * 0.325) + row * pen.line_px
            pen.text((x + 2, pen.baseline(top)), line, WHITE, max_width=cell_width - 4)
    return sheet


class _Writer(Protocol):
    """What is used of OpenCV's `VideoWriter`."""

    def isOpened(self) -> bool: ...  # noqa: N802 (OpenCV's name)

    def write(self, image: U8Array) -> None: ...

    def release(self) -> None: ...


def _fitted(image: U8Array, size_wh: tuple[int, int]) -> U8Array:
    """The whole image in `size_wh`, with borders where the aspect differs."""
    cv2 = import_cv2("drawing")
    (width, height), (h, w) = size_wh, image.shape[:2]
    scale = min(width / w, height / h)
    inner = (max(1, min(width, round(w * scale))), max(1, min(height, round(h * scale))))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, inner, interpolation=how)
    fitted: U8Array = np.full((height, width, 3), PANEL, dtype=np.uint8)
    x, y = (width - inner[0]) // 2, (height - inner[1]) // 2
    fitted[y : y + inner[1], x : x + inner[0]] = resized
    return fitted
