# SPDX-License-Identifier: Apache-2.0
"""How a nano reasoner's float32 graphs become smaller. Does not know whether answers stay the same."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from foreseg_export.graphs import IR_VERSION, OPSET, store_half, strip

PRECISIONS = ("int8", "int8-weights", "fp16", "fp32")  # from the smallest and fastest
_LEVELS = 127.0
_MIN_STORED_ELEMENTS = 512  # smaller tables stay as they are: nothing to save


def lower(source: Path, path: Path, precision: str) -> None:
    """Write a graph in one of `PRECISIONS`; inputs and outputs stay float32.

    fp16: weights are stored so, arithmetic is as before. int8: the weights of products, by
    channel, with what they are multiplied with quantised as it comes; other tables as fp16.
    int8-weights: stored likewise, but every runtime makes floats of them at load: arithmetic is as
    before, and what is multiplied keeps its digits.
    """
    if precision == "fp32":
        shutil.copyfile(source, path)
    elif precision == "fp16":
        store_half(source, path)
    elif precision == "int8-weights":
        _store_int8(source, path)
        store_half(path, path)
    else:
        _quantise(source, path)
        store_half(path, path)


def _store_int8(source: Path, path: Path) -> None:
    """Write a graph whose weights of products are int8 with a scale for each column."""
    model = onnx.load(str(source))
    graph = model.graph
    factors = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
    made, tables = [], []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        is_large = values.ndim == 2 and values.size >= _MIN_STORED_ELEMENTS
        if tensor.name not in factors or not is_large or values.dtype != np.float32:
            continue
        scale = np.maximum(np.abs(values).max(axis=0), 1e-12) / np.float32(_LEVELS)
        whole, floats, step = (f"{tensor.name}_{part}" for part in ("int8", "float", "step"))
        tables.append(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), whole))
        tables.append(numpy_helper.from_array(scale.astype(np.float32), step))
        made.append(helper.make_node("Cast", [whole], [floats], to=onnx.TensorProto.FLOAT))
        made.append(helper.make_node("Mul", [floats, step], [tensor.name]))
        graph.initializer.remove(tensor)
    graph.initializer.extend(tables)
    nodes = [*made, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _quantise(source: Path, path: Path) -> None:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a step that the exporter has done
    try:
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.disable(before)
    model = onnx.load(str(path))
    strip(model)
    # its tools add the domain of their own operators, of which none is used
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
