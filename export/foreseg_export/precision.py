# SPDX-License-Identifier: Apache-2.0
"""Which piece gets which precision, and how a float32 graph becomes an int8 one.

fp16 pieces are traced in half (`foreseg_torch.tracker.sam2_half`). int8 is the image encoder
alone, as QDQ nodes around its convolutions and projections: memory attention and decoder lose ten
to a hundred times more mask for it, the memory encoder is too small to matter. Inputs and outputs
stay float32 in every precision. Does not know where calibration frames come from.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    create_calibrator,
)
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from foreseg_export.graphs import IR_VERSION, OPSET, PIECE_NAMES, strip
from foreseg_export.int8_graph import INT8_PIECE
from foreseg_export.targets import PROCESSORS

F32 = NDArray[np.float32]

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_METHODS = ("percentile", "minmax", "entropy")

_ROOM = 6  # what its tools leave in files on the way, in sizes of the graph
_QUANTISED = ("Conv", "Gemm", "MatMul")
_RANGES: Mapping[str, tuple[CalibrationMethod, Mapping[str, float]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"percentile": 99.99, "num_bins": 2048}),
    # with ONNX Runtime's own number of bins, as many as levels, entropy would be minmax
    "entropy": (CalibrationMethod.Entropy, {"num_bins": 2048, "num_quantized_bins": 128}),
}


def lowered_pieces(precision: str, target: str) -> dict[str, str]:
    """The pieces that a bundle of this precision lowers, and to what.

    Beside an int8 encoder the others are half, but not on a processor, where half is no faster.
    """
    if precision == "fp32":
        return {}
    on_processor = precision == "int8" and target in PROCESSORS
    rest = {} if on_processor else dict.fromkeys(PIECE_NAMES, "fp16")
    return rest | ({INT8_PIECE: "int8"} if precision == "int8" else {})


def quantise(graph: Path, out: Path, pixels: Iterable[F32], *, method: str) -> None:
    """Write the int8 form of an image encoder's float32 graph.

    Weights are quantised by channel, activations by tensor, both symmetric as TensorRT wants
    them; only products with weights are, so attention itself stays float32.

    Args:
        graph: float32, with float32 weights.
        out: the new file.
        pixels: inputs whose ranges are taken, (1, 3, S, S) each; looked at one by one.
        method: one of `CALIBRATION_METHODS`.

    Raises:
        OSError: the disk is full.
    """
    kind, options = _RANGES[method]
    _check_space(_ROOM * graph.stat().st_size, (str(out.parent), tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        folded = str(Path(scratch) / "folded.onnx")
        quant_pre_process(str(graph), folded, skip_symbolic_shape=True)
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of its bins
            calibrator = create_calibrator(
                folded,
                _QUANTISED,
                augmented_model_path=str(Path(scratch) / "augmented.onnx"),
                calibrate_method=kind,
                extra_options={"symmetric": True, **options},
            )
            for sample in pixels:
                calibrator.collect_data(_OneSample({"pixels": sample}))
            ranges = calibrator.compute_data()
        quantizer = QDQQuantizer(
            onnx.load(folded),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(_QUANTISED),
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "MatMulConstBOnly": True,
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    model = quantizer.model.model
    strip(model)
    # its tools add the domain of their own operators, of which none is used
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    out.write_bytes(model.SerializeToString())


def _check_space(num_bytes: int, places: Iterable[str]) -> None:
    """ONNX Runtime's tools do not notice a full disk: they read half a graph back."""
    for place in places:
        if shutil.disk_usage(place).free < num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)


class _OneSample(CalibrationDataReader):
    """One input: ranges are merged after each, so that no more than one is held in memory."""

    def __init__(self, sample: dict[str, F32]) -> None:
        self._left: Iterator[dict[str, F32]] = iter((sample,))

    def get_next(self) -> dict[str, F32] | None:
        return next(self._left, None)
