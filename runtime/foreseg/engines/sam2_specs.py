# SPDX-License-Identifier: Apache-2.0
"""What goes into and comes out of the four pieces of a tracker, by its geometry.

Knows nothing of what runs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from foreseg.engines.base import Engine, TensorSpec
from foreseg.engines.manifest import Sam2Geometry
from foreseg.errors import EngineError

_ROWS, _POINTS = "B", "P"


def sam2_specs(
    geometry: Sam2Geometry,
) -> dict[str, tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]:
    """Inputs and outputs of the four pieces, in the order of their arguments and results."""
    cell, side, mask = geometry.feature_size, geometry.image_size, geometry.mask_size
    hidden, slots = geometry.hidden_channels, 1 + geometry.num_recent
    pointers, maps = geometry.num_pointers, (geometry.memory_tokens, geometry.memory_channels)
    feat = _spec("feat", 1, hidden, cell, cell)
    stride4 = _spec("stride4", 1, hidden // 8, 4 * cell, 4 * cell)
    stride8 = _spec("stride8", 1, hidden // 4, 2 * cell, 2 * cell)
    rows_feat = (_ROWS, hidden, cell, cell)
    logits = _spec("mask_logits", _ROWS, mask, mask)
    object_logit = _spec("object_logit", _ROWS)
    attention = (
        feat,
        _spec("memory", _ROWS, slots, *maps),
        _spec("memory_position", _ROWS, slots, dtype="int32"),
        _spec("memory_valid", _ROWS, slots),
        _spec("pointer", _ROWS, pointers, hidden),
        _spec("pointer_age", _ROWS, pointers),
        _spec("pointer_valid", _ROWS, pointers),
    )
    decoder = (
        _spec("feat", *rows_feat),
        stride4,
        stride8,
        _spec("point_coords", _ROWS, _POINTS, 2),
        _spec("point_labels", _ROWS, _POINTS, dtype="int32"),
        _spec("mask_input", _ROWS, mask, mask),
        _spec("has_mask", _ROWS),
        _spec("multimask", _ROWS),
    )
    decoded = (logits, _spec("score", _ROWS), object_logit, _spec("pointer_out", _ROWS, hidden))
    encoded = (stride4, stride8, feat, _spec("feat_no_memory", 1, hidden, cell, cell))
    memory = (feat, logits, object_logit, _spec("hard", _ROWS))
    return {
        "image_encoder": ((_spec("pixels", 1, 3, side, side),), encoded),
        "memory_attention": (attention, (_spec("conditioned", *rows_feat),)),
        "decoder": (decoder, decoded),
        "memory_encoder": (memory, (_spec("memory", _ROWS, *maps),)),
    }


def check_geometry(engines: Iterable[Engine], geometry: Sam2Geometry) -> None:
    """Compare engines with the geometry that their manifest tells; pieces besides ours may be any.

    Raises:
        EngineError: an engine takes or gives other tensors.
    """
    wanted = sam2_specs(geometry)
    for engine in engines:
        if engine.name not in wanted:
            continue
        for specs, has in zip(wanted[engine.name], (engine.inputs, engine.outputs), strict=True):
            got = {spec.name: spec for spec in has}
            for spec in specs:
                other = got.pop(spec.name, None)
                if other is None or _fixed(other) != _fixed(spec):
                    msg = f"the manifest tells of {spec}, the graph of {engine.name!r} has {other}"
                    raise EngineError(msg)
            if got:
                msg = f"the graph of {engine.name!r} has {sorted(got)}, of which no manifest tells"
                raise EngineError(msg)


def _fixed(spec: TensorSpec) -> tuple[Mapping[int, int], int, str]:
    """All but the names of axes."""
    sizes = {axis: size for axis, size in enumerate(spec.shape) if isinstance(size, int)}
    return sizes, len(spec.shape), spec.dtype


def _spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)
