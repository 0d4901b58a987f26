# SPDX-License-Identifier: Apache-2.0
"""A graph with smaller weights computes nearly the same, from a smaller file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the export: pip install 'foreseg[export]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="the export: pip install 'foreseg[export]'"
)

from foreseg_export.graphs import IR_VERSION, OPSET  # noqa: E402
from foreseg_export.reasoner_precision import PRECISIONS, lower  # noqa: E402

WIDTH = 64


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Two products, the columns of whose weights differ a hundredfold, and a small one."""
    rng = np.random.default_rng(0)
    scale = np.logspace(-1, 1, WIDTH)
    weights = {name: (rng.normal(size=(WIDTH, WIDTH)) * scale).astype(np.float32) for name in "ab"}
    weights["c"] = rng.normal(size=(WIDTH, 4)).astype(np.float32)
    names = ["x", "h", "g", "y"]
    nodes = [
        onnx.helper.make_node("MatMul", [names[i], name], [names[i + 1]])
        for i, name in enumerate("abc")
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", size])
        for name, size in (("x", WIDTH), ("y", 4))
    ]
    tables = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tables),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.save(model, str(tmp_path / "source.onnx"))
    return tmp_path / "source.onnx"


def said(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize(
    ("precision", "error", "size"),
    [("int8", 0.05, 0.4), ("int8-weights", 0.02, 0.4), ("fp16", 2e-3, 0.6), ("fp32", 0, 1.01)],
)
def test_lower_weights_are_close_and_small(
    graph: Path, precision: str, error: float, size: float
) -> None:
    out = graph.with_name("out.onnx")
    lower(graph, out, precision)
    x = np.random.default_rng(1).normal(size=(16, WIDTH)).astype(np.float32)
    wanted = said(graph, x)
    assert np.abs(said(out, x) - wanted).max() <= error * np.abs(wanted).max()
    assert out.stat().st_size <= size * graph.stat().st_size
    assert precision in PRECISIONS
