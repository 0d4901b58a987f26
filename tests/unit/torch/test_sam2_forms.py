# SPDX-License-Identifier: Apache-2.0
"""Layers rewritten for speed compute what they computed before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.support.sam2_models import tiny_hiera  # noqa: E402

from foreseg_torch.tracker.sam2_forms import CentredChannelNorm, centre_norms  # noqa: E402
from foreseg_torch.tracker.sam2_half import Float32Island, in_half  # noqa: E402

TOLERANCE = 2e-5  # float32, of values around 1


def _shaken_norms(model: torch.nn.Module) -> None:
    """Norms that do something: at the start their weights are 1 and their biases 0."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)


def test_centred_norms_change_no_mask_that_is_remembered_or_prompted() -> None:
    model = tiny_hiera().requires_grad_(requires_grad=False)
    _shaken_norms(model)
    masks = 10 * torch.randn(2, 1, 64, 64)
    pieces = (model.memory_encoder.mask_downsampler, model.prompt_encoder.mask_embed)
    before = [piece(masks) for piece in pieces]
    centre_norms(model)
    assert sum(isinstance(m, CentredChannelNorm) for m in model.modules()) == 4
    for piece, expected in zip(pieces, before, strict=True):
        assert (piece(masks) - expected).abs().max() < TOLERANCE


def test_a_centred_norm_stays_in_float32_where_the_rest_is_half() -> None:
    norm = CentredChannelNorm(torch.nn.LayerNorm(4))
    half = in_half(torch.nn.Sequential(norm))
    assert isinstance(half[0], Float32Island)
    x = torch.tensor([[600.0, -600.0, 0.0, 0.0]]).reshape(1, 4, 1, 1)  # squares leave half's range
    out = half(x.half())
    assert (out.float() - norm(x)).abs().max() < 1e-3


def test_an_exact_gelu_becomes_one_kernel_of_onnx_runtime(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    graphs = pytest.importorskip("foreseg_export.graphs")
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).eval()
    x = torch.randn(3, 8)
    spec = graphs.PieceSpec(inputs={"input": x}, outputs=("y",), dynamic={})
    graphs.export_piece(model, spec, tmp_path / "gelu.onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = runtime.InferenceSession(
        str(tmp_path / "gelu.onnx"), options, providers=["CPUExecutionProvider"]
    )
    kernels = {node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node}
    assert "Erf" not in kernels
    assert kernels & {"Gelu", "BiasGelu"}
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(session.run(None, {"input": x.numpy()})[0] - expected).max() < TOLERANCE
