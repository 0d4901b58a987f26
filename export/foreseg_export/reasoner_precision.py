# SPDX-License-Identifier: Apache-2.0
"""How a nano reasoner's float32 graphs become smaller. Does not know whether answers stay the same."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from foreseg_export.graphs import IR_VERSION, OPSET, store_half, strip

PRECISIONS = ("int8", "fp16", "fp32")  # of weights, from the smallest


def lower(source: Path, path: Path, precision: str) -> None:
    """Write a graph in one of `PRECISIONS`; inputs and outputs stay float32.

    fp16: weights are stored so, arithmetic is as before. int8: the weights of products, by
    channel, with what they are multiplied with quantised as it comes; other tables as fp16.
    """
    if precision == "fp32":
        shutil.copyfile(source, path)
    elif precision == "fp16":
        store_half(source, path)
    else:
        _quantise(source, path)
        store_half(path, path)


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
