# SPDX-License-Identifier: Apache-2.0
"""From a tracker's torch pieces to ONNX graphs. Knows the names of inputs and outputs."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript
import torch
from onnx import helper, numpy_helper
from onnxscript import ir
from torch import Tensor, nn

from foreseg_torch.tracker.video_models import VideoModel, memory_tokens

OPSET = 18
IR_VERSION = 8  # the oldest that has this opset: ONNX Runtime 1.14 and later open it
PIECE_NAMES = ("image_encoder", "memory_attention", "decoder", "memory_encoder")

_MIN_STORED_ELEMENTS = 512  # smaller tensors keep float32: nothing to save


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceSpec:
    """How a piece is traced; `dynamic` maps an input to its named axes.

    An axis is 1 to `max_room` long.
    """

    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]]
    max_room: int = 64

    def shapes(self) -> dict[str, dict[int, Any]]:
        """Of the inputs, as torch wants them."""
        names = sorted({name for axes in self.dynamic.values() for name in axes.values()})
        dims = {name: torch.export.Dim(name, min=1, max=self.max_room) for name in names}
        return {
            name: {axis: dims[dim] for axis, dim in self.dynamic.get(name, {}).items()}
            for name in self.inputs
        }


def piece_specs(model: VideoModel) -> dict[str, PieceSpec]:
    """Example inputs of every piece: B = 2 rows and P = 3 points, so that neither is baked in."""
    rows, points = 2, 3
    side, cell = model.image_size, model.backbone_feature_sizes[-1][0]
    hidden, mask = model.hidden_dim, side // 4
    slots, pointers = model.num_maskmem, model.config.max_object_pointers_in_encoder
    feat = torch.randn(1, hidden, cell, cell)
    by_row = {0: "B"}
    attention = {
        "feat": feat,
        "memory": torch.randn(rows, slots, memory_tokens(model), model.mem_dim),
        "memory_position": torch.zeros(rows, slots, dtype=torch.int32),
        "memory_valid": torch.ones(rows, slots),
        "pointer": torch.randn(rows, pointers, hidden),
        "pointer_age": torch.ones(rows, pointers),
        "pointer_valid": torch.ones(rows, pointers),
    }
    decoder = {
        "feat": torch.randn(rows, hidden, cell, cell),
        "stride4": torch.randn(1, hidden // 8, 4 * cell, 4 * cell),
        "stride8": torch.randn(1, hidden // 4, 2 * cell, 2 * cell),
        "point_coords": torch.rand(rows, points, 2) * side,
        "point_labels": torch.ones(rows, points, dtype=torch.int32),
        "mask_input": torch.randn(rows, mask, mask),
        "has_mask": torch.zeros(rows),
        "multimask": torch.zeros(rows),
    }
    memory = {
        "feat": feat,
        "mask_logits": torch.randn(rows, mask, mask),
        "object_logit": torch.ones(rows),
        "hard": torch.zeros(rows),
    }
    shared = ("feat", "stride4", "stride8")
    axes = {name: by_row for name in decoder if name not in shared} | {"feat": by_row}
    axes |= {"point_coords": {0: "B", 1: "P"}, "point_labels": {0: "B", 1: "P"}}
    return {
        "image_encoder": PieceSpec(
            inputs={"pixels": torch.randn(1, 3, side, side)},
            outputs=("stride4", "stride8", "feat", "feat_no_memory"),
            dynamic={},
        ),
        "memory_attention": PieceSpec(
            inputs=attention,
            outputs=("conditioned",),
            dynamic={name: by_row for name in attention if name != "feat"},
        ),
        "decoder": PieceSpec(
            inputs=decoder,
            outputs=("mask_logits", "score", "object_logit", "pointer_out"),
            dynamic=axes,
        ),
        "memory_encoder": PieceSpec(
            inputs=memory,
            outputs=("memory",),
            dynamic={name: by_row for name in memory if name != "feat"},
        ),
    }


def export_piece(piece: nn.Module, spec: PieceSpec, path: Path) -> None:
    """Trace a piece, in evaluation mode, and write one self-contained ONNX file."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            torch.onnx.export(
                piece,
                (),
                str(path),
                kwargs=dict(spec.inputs),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                verbose=False,
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                dynamic_shapes=spec.shapes(),
                custom_translation_table={torch.ops.aten.gelu.default: _gelu},
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    graph = onnx.load(str(path))
    strip(graph)
    graph.ir_version = IR_VERSION
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())


def _gelu(x: ir.Value, approximate: str = "none") -> ir.Value:
    """An exact GELU, multiplied in the order that ONNX Runtime knows: one kernel instead of five."""
    if approximate != "none":
        msg = f"a piece wants exact GELUs, got one of kind {approximate!r}"
        raise ValueError(msg)
    op: Any = onnxscript.opset18  # typed for tensors, called with values of a graph that is built
    shifted = op.Add(op.Erf(op.Div(x, op.CastLike(math.sqrt(2), x))), op.CastLike(1.0, x))
    return op.Mul(op.Mul(x, shifted), op.CastLike(0.5, x))


def num_nodes(path: Path) -> int:
    """Operators of a graph."""
    return len(onnx.load(str(path)).graph.node)


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes for debugging: stack traces with paths of this machine."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    graph.doc_string = ""
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    del model.functions[:]


def store_half(source: Path, path: Path) -> None:
    """Write a graph whose large float32 weights are float16, behind a Cast.

    Every runtime folds it at load: the arithmetic is as before, with rounded weights.
    """
    model = onnx.load(str(source))
    graph = model.graph
    kept, casts = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != onnx.TensorProto.FLOAT or values.size < _MIN_STORED_ELEMENTS:
            kept.append(tensor)
            continue
        half = f"{tensor.name}_half"
        kept.append(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(
            helper.make_node(
                "Cast", [half], [tensor.name], name=f"cast_{half}", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *graph.node]
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
