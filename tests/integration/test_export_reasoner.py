# SPDX-License-Identifier: Apache-2.0
"""The export of a nano reasoner: which precision is kept, the same bytes again, and what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the export: pip install 'foreseg[export,train]'")
for name in ("transformers", "onnxscript", "onnxruntime", "tokenizers", "cv2"):
    pytest.importorskip(name, reason="the export: pip install 'foreseg[export,train]'")

from tests.support.tiny_nano import card, save_tiny_nano, tiny_nano, tiny_nano_bundle  # noqa: E402

from foreseg.engines.manifest import read_hashed  # noqa: E402
from foreseg.nano.bundle import (  # noqa: E402
    CALIBRATION,
    DECODER,
    FAMILIAR,
    TOKENIZER,
    VISION,
    read_nano_bundle,
    require_agreement,
)
from foreseg.reasoner.calibration import (  # noqa: E402
    Calibration,
    read_calibration,
    write_calibration,
)
from foreseg.reasoner.prompt_card import CARD  # noqa: E402
from foreseg_export import reasoner  # noqa: E402
from foreseg_export.cli import main  # noqa: E402
from foreseg_export.reasoner_precision import lower  # noqa: E402

pytestmark = pytest.mark.slow


def test_the_smallest_weights_that_change_no_answer_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    traced = tiny_nano_bundle()  # before what makes it is changed below

    def harmful(source: Path, path: Path, precision: str) -> None:
        if (
            precision.startswith("int8") and path.name == DECODER
        ):  # as an unlucky quantisation might be
            shutil.copyfile(tmp_path / "other.onnx", path)
        else:
            lower(source, path, precision)

    def kept(piece: object, spec: object, path: Path) -> None:
        """In place of tracing: what was traced for the bundle of this test run."""
        del piece, spec
        shutil.copyfile(traced / path.name.removeprefix("fp32-"), path)
        if path.name.endswith(DECODER):
            _negate(path, tmp_path / "other.onnx")

    monkeypatch.setattr(reasoner, "lower", harmful)
    monkeypatch.setattr(reasoner, "export_piece", kept)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "seen.npy", rng.normal(size=(200, 4, 64)).astype(np.float16))
    out = tmp_path / "bundle"
    words = ["reasoner", "--from", str(tiny_nano()), "--out", str(out), "--golden-tokens", "8"]
    calibration = Calibration(
        slope=0.5, intercept=1.0, answers=9, ece_before=0.3, ece_after=0.1, source="runs/mine"
    )
    write_calibration(tmp_path / "fitted.json", calibration)
    words += ["--seen", str(tmp_path / "seen.npy"), "--calibration", str(tmp_path / "fitted.json")]
    cv2 = pytest.importorskip("cv2")
    (tmp_path / "photos").mkdir()
    for n in range(120):
        picture = rng.integers(0, 256, (30, 40, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"photos/{n}.png"), picture)
    words += ["--unlike", str(tmp_path / "photos")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "int8:" in told
    assert "fp16" in told.splitlines()[-1]
    bundle = read_nano_bundle(out)
    require_agreement(bundle.manifest, out)
    assert bundle.manifest.precision == "fp16"
    assert bundle.manifest.agreement.same == bundle.manifest.agreement.prompts == 6
    limits = bundle.manifest.familiar
    assert limits is not None
    assert 0.5 < limits.distance < 5
    assert limits.lean != 0
    assert f"parted from 120 others and {reasoner.NUM_DRAWINGS} plain drawings" in told
    assert {path.name for path in out.iterdir()} == {
        VISION, DECODER, TOKENIZER, CARD, FAMILIAR, CALIBRATION, "manifest.json",
    }  # fmt: skip
    assert read_calibration(out / CALIBRATION) == calibration
    for file in bundle.manifest.files:
        read_hashed(out / file.name, num_bytes=file.num_bytes, sha256=file.sha256, remedy="")


def _negate(source: Path, out: Path) -> None:
    """The same decoder, whose least probable token is the most probable."""
    import onnx

    model = onnx.load(str(source))
    for node in model.graph.node:
        node.output[:] = ["inner" if name == "logits" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["inner"], ["logits"]))
    onnx.save(model, str(out))


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    again = save_tiny_nano(tmp_path / "tiny_nano")
    options = reasoner.ReasonerExportOptions(name="tiny", precision="fp32", max_tokens=8)
    asked = reasoner.ValidationSet(name="", windows=_windows(), queries=("what will fall next?",))
    reasoner.export_reasoner(again, tmp_path / "out", options, asked)
    for path in tiny_nano_bundle().iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def _windows() -> tuple[object, ...]:
    from foreseg_export.vlm_quality import drawn_set

    return drawn_set().windows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("card", "wants a method.json that says how it was trained"),
        ("words", "trained on other words"),
        ("template", "wants a chat template of ChatML"),
        ("out", "exists: remove it, or choose another folder"),
        ("weights", "is not whole|cannot be loaded"),
        ("from", "--from wants a folder"),
        ("tokens", "--golden-tokens wants 1 to 1024, got 0"),
        ("query", "--query wants a clip to ask about"),
        ("calibration", "fitted.json is no calibration"),
        ("unlike", "--unlike wants to know what is alike: give --seen FILE"),
        ("no folder", "--unlike wants a folder of pictures, got .*nothing"),
        ("seen", "wants tokens of at least 100 frames, with 64 channels, got 200 x 4 x 3"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
    words: str,
) -> None:
    monkeypatch.setattr(reasoner, "export_piece", lambda *_: None)
    folder, out = tmp_path / "nano", tmp_path / "out"
    shutil.copytree(tiny_nano(), folder)
    given = ["reasoner", "--from", str(folder), "--out", str(out), "--golden-tokens", "2"]
    if change == "card":
        (folder / CARD).unlink()
    elif change == "words":
        (folder / CARD).write_text(card(words="other").to_json(), "utf-8")
    elif change == "template":
        template = folder / "chat_template.jinja"
        template.write_text(template.read_text("utf-8").replace("assistant", "robot"), "utf-8")
    elif change == "out":
        out.mkdir()
        (out / "mine").write_text("")
    elif change == "weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif change == "from":
        given[2] = str(tmp_path / "nothing")
    elif change == "tokens":
        given[-1] = "0"
    elif change == "query":
        given += ["--query", "what?"]
    elif change == "unlike":
        given += ["--unlike", str(tmp_path)]
    elif change == "no folder":
        np.save(tmp_path / "seen.npy", np.zeros((200, 4, 64), np.float16))
        given += ["--seen", str(tmp_path / "seen.npy"), "--unlike", str(tmp_path / "nothing")]
    elif change == "calibration":
        (tmp_path / "fitted.json").write_text("{}")
        given += ["--calibration", str(tmp_path / "fitted.json")]
    else:
        np.save(tmp_path / "seen.npy", np.zeros((200, 4, 3), np.float16))
        given += ["--seen", str(tmp_path / "seen.npy")]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert re.search(words, error), error
    assert error.count("\n") == 1
    assert not (out / VISION).exists()
