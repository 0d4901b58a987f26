# SPDX-License-Identifier: Apache-2.0
"""Meta's checkpoints, loaded by us, compute what Meta's own package computes: stage by stage.

Weights are random: this shows that the arithmetic is the same, which is what a mapping of names
and an inferred geometry can get wrong.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="checkpoints are torch models")
pytest.importorskip("transformers", reason="the models are transformers'")
WITHOUT = "`pip install --no-deps sam2` and hydra-core, iopath: Meta's package is the reference"
pytest.importorskip("sam2.modeling.sam2_base", reason=WITHOUT)

from tests.support.meta_sam2 import (  # noqa: E402
    GOLDEN,
    HIDDEN,
    MEMORY,
    MetaStream,
    know_tiny_trunk,
    tiny_meta,
)

from foreseg_torch.tracker.sam2_meta import config_from_meta, model_from_meta  # noqa: E402
from foreseg_torch.tracker.sam2_reference import Sam2Reference  # noqa: E402

# float32 sums in another order, on values of up to 10
STAGE_TOLERANCE = 2e-5
# memories that transformers rounds to bfloat16; logits of up to 4
STREAM_TOLERANCE = 1e-3
SIDE = 64
CELL = SIDE // 16
GENERATIONS = ("2", "2.1")
POINTS = np.array([[9.0, 21.0], [41.0, 52.0]], np.float32)
BOX = np.array([2, 3], np.int32)


@pytest.fixture(autouse=True)
def _quiet_and_known(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    know_tiny_trunk(monkeypatch)


def pair(generation: str = "2.1", image_size: int = SIDE):  # noqa: ANN201 (two torch models)
    theirs = tiny_meta(generation=generation, image_size=image_size)
    state = theirs.state_dict()
    return theirs, model_from_meta(state, config_from_meta(state, image_size))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.shape == wanted.shape
    assert float(wanted.std()) > 1e-3, "nothing to compare: the reference is flat"
    assert float((got - wanted).abs().max()) < STAGE_TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 96])
def test_image_encoder(size: int) -> None:
    theirs, ours = pair(image_size=size)
    pixels = noise(2, 3, size, size)
    wanted, got = theirs.image_encoder(pixels), ours.vision_encoder(pixels)
    for level in range(3):
        same(got.fpn_hidden_states[level], wanted["backbone_fpn"][level])
        same(got.fpn_position_encoding[level], wanted["vision_pos_enc"][level])


@torch.no_grad()
@pytest.mark.parametrize("labels", [(2, 3), (1, 0), (-1, 1)])
def test_prompt_encoder(labels: tuple[int, int]) -> None:
    theirs, ours = pair()
    coords, kinds = torch.from_numpy(POINTS)[None], torch.tensor([labels], dtype=torch.int32)
    mask = noise(1, 1, SIDE // 4, SIDE // 4)
    for given in (None, mask):
        sparse, dense = theirs.sam_prompt_encoder(points=(coords, kinds), boxes=None, masks=given)
        got_sparse, got_dense = ours.prompt_encoder(coords[:, None], kinds[:, None], None, given)
        same(got_sparse[:, 0], sparse)
        same(got_dense.expand_as(dense), dense)
    same(ours.get_image_wide_positional_embeddings(), theirs.sam_prompt_encoder.get_dense_pe())


@torch.no_grad()
@pytest.mark.parametrize("multimask", [True, False])
def test_mask_decoder(multimask: bool) -> None:  # noqa: FBT001
    theirs, ours = pair()
    feat, position = noise(2, HIDDEN, CELL, CELL), noise(1, HIDDEN, CELL, CELL, seed=1)
    dense, sparse = noise(2, HIDDEN, CELL, CELL, seed=2), noise(2, 3, HIDDEN, seed=3)
    fine = [
        noise(2, HIDDEN // 8, 4 * CELL, 4 * CELL, seed=4),
        noise(2, HIDDEN // 4, 2 * CELL, 2 * CELL, seed=5),
    ]
    masks, ious, tokens, logits = theirs.sam_mask_decoder(
        image_embeddings=feat,
        image_pe=position,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
        repeat_image=False,
        high_res_features=fine,
    )
    got = ours.mask_decoder(
        image_embeddings=feat,
        image_positional_embeddings=position.expand(2, -1, -1, -1),
        sparse_prompt_embeddings=sparse[:, None],
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
        high_resolution_features=fine,
    )
    for ours_of, wanted in zip(got, (masks, ious, tokens, logits), strict=True):
        same(ours_of[:, 0], wanted)
    same(ours.object_pointer_proj(tokens), theirs.obj_ptr_proj(tokens))


@torch.no_grad()
def test_memory_encoder() -> None:
    theirs, ours = pair()
    feat, mask = noise(2, HIDDEN, CELL, CELL), 20 * noise(2, 1, SIDE, SIDE, seed=1)
    wanted = theirs.memory_encoder(feat, mask, skip_mask_sigmoid=True)
    memory, position = ours.memory_encoder(feat, mask)
    same(memory, wanted["vision_features"])
    same(position, wanted["vision_pos_enc"][0])


@torch.no_grad()
def test_memory_of_an_absent_object() -> None:
    theirs, ours = pair()
    feat, mask = noise(CELL * CELL, 1, HIDDEN), noise(1, 1, SIDE, SIDE, seed=1)
    for logit in (-1.0, 1.0):
        score = torch.tensor([[logit]])
        wanted, _ = theirs._encode_new_memory(
            [feat], [(CELL, CELL)], mask, score, is_mask_from_pts=True
        )
        got, _ = ours._encode_new_memory(feat, mask, score, is_mask_from_pts=True)
        wanted = wanted.to(torch.bfloat16).flatten(2).permute(2, 0, 1)
        assert float((got - wanted).abs().max()) <= float(wanted.abs().max()) / 128


@torch.no_grad()
def test_memory_attention() -> None:
    theirs, ours = pair()
    cells, tokens = CELL * CELL, HIDDEN // MEMORY * 3
    feat, position = noise(cells, 2, HIDDEN), noise(cells, 2, HIDDEN, seed=1)
    memory = noise(3 * cells + tokens, 2, MEMORY, seed=2)
    memory_position = noise(3 * cells + tokens, 2, MEMORY, seed=3)
    wanted = theirs.memory_attention(
        curr=[feat],
        curr_pos=[position],
        memory=memory,
        memory_pos=memory_position,
        num_obj_ptr_tokens=tokens,
    )
    got = ours.memory_attention(feat, memory, position, memory_position, tokens)
    same(got[0].transpose(0, 1), wanted)


def drift(theirs: torch.nn.Module, ours: torch.nn.Module, frames: int = 9) -> float:
    """The largest difference of mask logits when both follow an object from a box."""
    stream, reference = MetaStream(theirs), Sam2Reference(ours)
    reference.prompt_points(0, POINTS, BOX)
    side, largest = ours.image_size, 0.0
    for index in range(frames):
        pixels = noise(1, 3, side, side, seed=index).numpy()
        wanted, logit = stream.step(pixels, (POINTS, BOX) if index == 0 else None)
        got, got_logit = reference.step(pixels)
        assert float(np.std(wanted)) > 0.1
        assert abs(float(got_logit[0]) - logit) < STREAM_TOLERANCE
        largest = max(largest, float(np.abs(got[0] - wanted).max()))
    return largest


@pytest.mark.parametrize("generation", GENERATIONS)
def test_stream_of_frames(generation: str) -> None:
    assert drift(*pair(generation)) < STREAM_TOLERANCE


@pytest.mark.parametrize("forgotten", ["pointer times", "memory times"])
def test_comparison_of_streams_would_notice(forgotten: str) -> None:
    theirs, ours = pair()
    if forgotten == "pointer times":
        ours.config.enable_temporal_pos_encoding_for_object_pointers = False
    else:
        ours.memory_temporal_positional_encoding.data.copy_(
            ours.memory_temporal_positional_encoding.data.flip(0)
        )
    assert drift(theirs, ours) > 2 * STREAM_TOLERANCE


def test_names_kept_for_tests_are_the_packages() -> None:
    state = tiny_meta().state_dict()
    kept = json.loads(GOLDEN.read_text("utf-8"))
    assert {name: list(value.shape) for name, value in state.items()} == kept


@pytest.mark.parametrize("size", ["t", "s", "b+", "l"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_published_configurations(
    generation: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eight files that Meta published: every tensor fits, and what is looked up is right."""
    hydra = pytest.importorskip("hydra.utils", reason=WITHOUT)
    conf = pytest.importorskip("omegaconf", reason=WITHOUT)
    import sam2

    family = "sam2" if generation == "2" else "sam2.1"
    path = Path(sam2.__file__).parent / "configs" / family / f"{family}_hiera_{size}.yaml"
    published = conf.OmegaConf.load(path).model
    for start in ("kaiming_uniform_", "xavier_uniform_", "uniform_", "trunc_normal_", "normal_"):
        monkeypatch.setattr(torch.nn.init, start, lambda tensor, *_, **__: tensor)  # not needed
    state = hydra.instantiate(published, _recursive_=True).state_dict()
    config = config_from_meta(state)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no-op.*")  # nothing is copied to "meta"
        model_from_meta(state, config)
    trunk = published.image_encoder.trunk
    backbone = config.vision_config.backbone_config
    assert backbone.num_attention_heads_per_stage[0] == trunk.get("num_heads", 2)
    assert backbone.window_size_per_stage == list(trunk.get("window_spec", (8, 4, 14, 7)))
    assert backbone.global_attention_blocks == list(trunk.get("global_att_blocks", (12, 16, 20)))
    assert config.enable_temporal_pos_encoding_for_object_pointers == (generation == "2.1")
