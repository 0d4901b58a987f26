# SPDX-License-Identifier: Apache-2.0
"""EdgeTAM's pieces do what `transformers`' modules do, and its checkpoints open or are refused."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the pieces are torch modules")
for name in ("transformers", "onnx", "cv2"):
    pytest.importorskip(name, reason="opening a checkpoint needs it")

from tests.support.edgetam_models import GRID, NUM_FREE, tiny_edgetam  # noqa: E402
from transformers import (  # noqa: E402
    EdgeTamVideoConfig,
    EdgeTamVideoModel,
    EdgeTamVisionConfig,
    TimmWrapperConfig,
)

from foreseg.errors import InputError  # noqa: E402
from foreseg_export import checkpoints  # noqa: E402
from foreseg_export.checkpoints import open_checkpoint  # noqa: E402
from foreseg_torch.tracker.sam2_geometry import set_image_size  # noqa: E402
from foreseg_torch.tracker.sam2_half import in_half  # noqa: E402
from foreseg_torch.tracker.video_models import cut, family_of, memory_tokens  # noqa: E402

TOKENS = NUM_FREE + GRID**2
SIDE, CELLS, HIDDEN, WIDTH = 64, 4, 128, 64
# float32 sums in another order; what the pieces get wrong is off by more than a thousand times
TOLERANCE = 1e-5
TRUNK_TOLERANCE = 1e-4  # a hundred fused convolutions
HALF_TOLERANCE = 2e-2  # of values of deviation 1


@pytest.fixture(scope="module", params=[False, True], ids=["all_encodings", "as_published"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return tiny_edgetam(as_published=request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("edgetam") / "checkpoint"
    tiny_edgetam(image_size=256).save_pretrained(path)
    return path


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows_in_order(feat: torch.Tensor) -> torch.Tensor:
    """(1, C, h, w) as the model's own functions want it: (h w, 1, C)."""
    return feat.flatten(2).permute(2, 0, 1)


@torch.no_grad()
def test_memory_encoder_resamples_as_the_model_does(model: torch.nn.Module) -> None:
    piece = cut(model)["memory_encoder"]
    feat, logits = random(1, HIDDEN, CELLS, CELLS), 5 * random(4, SIDE // 4, SIDE // 4, seed=1)
    object_logit = torch.tensor([2.0, 2.0, -2.0, -2.0])
    hard = torch.tensor([0.0, 1.0, 0.0, 1.0])
    got = piece(feat, logits, object_logit, hard)
    assert got.shape == (4, TOKENS, WIDTH)
    fine = torch.nn.functional.interpolate(logits[:, None], size=(SIDE, SIDE), mode="bilinear")
    wanted = [
        model._encode_new_memory(
            rows_in_order(feat), fine[i : i + 1], object_logit[i].reshape(1, 1), bool(hard[i])
        )[0]
        for i in range(4)
    ]
    assert (got - torch.cat(wanted)).abs().max() < TOLERANCE
    assert (in_half(piece)(feat, logits, object_logit, hard) - got).abs().max() < HALF_TOLERANCE


class Squeeze(torch.nn.Module):
    """Squeeze and excitation with the names that `timm` gives its parts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = torch.nn.Conv2d(channels, 2, 1)
        self.act = torch.nn.ReLU()
        self.fc2 = torch.nn.Conv2d(2, channels, 1)
        self.gate = torch.nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # as a kernel may do it that adds up in the type it is given: half ends at 65504
        mean = x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
        return x * self.gate(self.fc2(self.act(self.fc1(mean))))


@torch.no_grad()
def test_half_trunks_average_whole_maps_in_float32() -> None:
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), Squeeze(4)).eval()
    for weights, value in ((trunk[0], 0.5), (trunk[1].fc1, 0.1), (trunk[1].fc2, -0.1)):
        torch.nn.init.constant_(weights.weight, value)
    x = random(1, 3, 256, 256).abs() + 1.0
    wanted, half = trunk(x), in_half(trunk)
    got = half(x.half())
    assert half[0].weight.dtype == got.dtype == torch.float16
    assert (got.float() - wanted).abs().max() < 2e-3 * wanted.abs().max()
    assert not copy.deepcopy(trunk).half()(x.half()).any(), "the sum leaves half's range"


@torch.no_grad()
def test_latents_see_their_own_window_or_the_whole_map(model: torch.nn.Module) -> None:
    resampler = cut(model)["memory_encoder"].resampler
    cells = random(1, CELLS**2, WIDTH)
    changed = cells.clone()
    changed[0, 2 * CELLS + 1, 0] += 3.0  # third row, second column: the window below on the left
    moved = (resampler(cells) - resampler(changed)).abs().amax(dim=2)[0] > TOLERANCE
    assert moved.tolist() == [True] * NUM_FREE + [False, False, True, False]


def attention_inputs(*, pointers: int = 16) -> dict[str, torch.Tensor]:
    """Two rows: one with two memory maps and a pointer, one with seven and all pointers."""
    memory_valid = torch.ones(2, 7)
    memory_valid[0, [1, 2, 4, 5, 6]] = 0
    position = torch.tensor([[6, 0, 0, 2, 0, 0, 0], [6, 0, 1, 2, 3, 4, 5]], dtype=torch.int32)
    pointer_valid = torch.ones(2, pointers)
    pointer_valid[0, 1:] = 0
    memory = random(2, 7, TOKENS, WIDTH, seed=2)
    memory[0, 1] = 1e3  # what is not valid may be anything finite
    return {
        "feat": random(1, HIDDEN, CELLS, CELLS, seed=3),
        "memory": memory,
        "memory_position": position,
        "memory_valid": memory_valid,
        "pointer": random(2, pointers, HIDDEN, seed=4),
        "pointer_age": torch.arange(pointers).repeat(2, 1) + 1.0,
        "pointer_valid": pointer_valid,
    }


def attended_by_the_model(
    model: torch.nn.Module, given: dict[str, torch.Tensor], row: int
) -> torch.Tensor:
    """The same through the model's own module, which takes what is valid, one after another."""
    _, latent_position = model.spatial_perceiver(
        torch.zeros(1, WIDTH, CELLS, CELLS), torch.zeros(1, WIDTH, CELLS, CELLS)
    )
    slots = [i for i in range(7) if given["memory_valid"][row, i]]
    times = model.memory_temporal_positional_encoding.reshape(-1, WIDTH)
    memories = [given["memory"][row, i] for i in slots]
    positions = [latent_position[0] + times[int(given["memory_position"][row, i])] for i in slots]
    kept = [i for i in range(given["pointer"].shape[1]) if given["pointer_valid"][row, i]]
    tokens, token_positions = model._process_object_pointers(
        [int(given["pointer_age"][row, i]) for i in kept],
        [given["pointer"][row, i][None] for i in kept],
        model.config.max_object_pointers_in_encoder,
        1,
        HIDDEN,
        torch.device("cpu"),
    )
    encoding = model.vision_encoder.neck.position_encoding
    shape = torch.Size((1, HIDDEN, CELLS, CELLS))
    out = model.memory_attention(
        current_vision_features=rows_in_order(given["feat"]),
        current_vision_position_embeddings=rows_in_order(
            encoding(shape, torch.device("cpu"), torch.float32)
        ),
        memory=torch.cat([*memories, tokens[:, 0]])[:, None],
        memory_posision_embeddings=torch.cat([*positions, token_positions[:, 0]])[:, None],
        num_object_pointer_tokens=tokens.shape[0],
        num_spatial_memory_tokens=len(slots),
    )
    return out.reshape(CELLS * CELLS, HIDDEN).T.reshape(HIDDEN, CELLS, CELLS)


@torch.no_grad()
def test_memory_attention_takes_rows_of_any_age_as_the_model_does(model: torch.nn.Module) -> None:
    piece, given = cut(model)["memory_attention"], attention_inputs()
    got = piece(**given)
    for row in range(2):
        wanted = attended_by_the_model(model, given, row)
        assert (got[row] - wanted).abs().max() < TOLERANCE
    given["memory"][0, 1] = 0
    assert (in_half(piece)(**given) - got).abs().max() < HALF_TOLERANCE


@torch.no_grad()
def test_only_gridded_latents_have_a_place(model: torch.nn.Module) -> None:
    piece, given = cut(model)["memory_attention"], attention_inputs()
    got = piece(**given)
    free, gridded = given["memory"].clone(), given["memory"].clone()
    free[:, :, :NUM_FREE] = free[:, :, :NUM_FREE].flip(2)
    gridded[:, :, NUM_FREE:] = gridded[:, :, NUM_FREE:].flip(2)
    assert (piece(**given | {"memory": free}) - got).abs().max() < TOLERANCE
    assert (piece(**given | {"memory": gridded}) - got).abs().max() > 100 * TOLERANCE


def test_family_and_tokens_are_told() -> None:
    model = tiny_edgetam()
    assert family_of(model) == "edgetam"
    assert memory_tokens(model) == TOKENS


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("perceiver_resampler_num_latents_2d", 5, "gridded latents 4, got 5"),
        ("perceiver_resampler_num_latents_2d", 0, "gridded latents 1, got 0"),
        ("perceiver_resampler_num_latents", 0, "free latents, got 0"),
        ("perceiver_resampler_num_attention_heads", 2, "attention heads 1, got 2"),
        ("memory_attention_rope_k_sizes", [4, 4], r"grid of their keys \[2, 2\], got \[4, 4\]"),
        ("memory_attention_rope_feat_sizes", [5, 5], "got 5 cells a side for 2 windows"),
        ("memory_attention_downsample_rate", 2, "no downsampling"),
    ],
)
def test_geometry_that_the_pieces_do_not_cover_is_refused(
    field: str, value: object, reason: str
) -> None:
    model = tiny_edgetam()
    setattr(model.config, field, value)
    with pytest.raises(ValueError, match=reason):
        cut(model)


def test_checkpoint_opens_at_sizes_that_its_windows_divide(folder: Path) -> None:
    for image_size in (256, 320):
        model = open_checkpoint(folder, image_size=image_size, memory_slots=3).model
        assert (model.image_size, model.num_maskmem) == (image_size, 3)
        assert memory_tokens(model) == TOKENS
        piece = cut(model)["memory_encoder"]
        cells, side = image_size // 16, image_size // 4
        with torch.no_grad():
            memory = piece(
                random(1, HIDDEN, cells, cells),
                random(1, side, side),
                torch.ones(1),
                torch.ones(1),
            )
        assert memory.shape == (1, TOKENS, WIDTH)
    with pytest.raises(InputError, match="multiple of 32 is wanted by this checkpoint, got 336"):
        open_checkpoint(folder, image_size=336)
    with pytest.raises(InputError, match="2 to 7 memory slots"):
        open_checkpoint(folder, memory_slots=8)


def published_config() -> EdgeTamVideoConfig:
    """As EdgeTAM's own checkpoint says it: a RepViT of timm's."""
    trunk = TimmWrapperConfig(
        architecture="repvit_m1",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    return EdgeTamVideoConfig(
        vision_config=EdgeTamVisionConfig(backbone_config=trunk),
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
    )


def test_trunk_of_timm_wants_timm_and_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_config().save_pretrained(tmp_path)
    found: Callable[[str], object] = importlib.util.find_spec

    def find(name: str) -> object:
        return None if name in {"timm", "torchvision"} else found(name)

    monkeypatch.setattr(checkpoints.importlib.util, "find_spec", find)
    with pytest.raises(InputError, match=r"repvit_m1 .* `pip install timm torchvision`"):
        open_checkpoint(tmp_path)


def test_published_checkpoint_takes_multiples_of_256_px(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_config().save_pretrained(tmp_path)
    monkeypatch.setattr(checkpoints, "_check_trunk", lambda *_: None)
    with pytest.raises(InputError, match="multiple of 256 is wanted by this checkpoint, got 640"):
        open_checkpoint(tmp_path, image_size=640)
    with pytest.raises(InputError, match="does not load"):  # the size is fine: no weights are here
        open_checkpoint(tmp_path, image_size=512)


@torch.no_grad()
def test_repvit_trunk_with_its_branches_fused_gives_the_same_maps() -> None:
    pytest.importorskip("torchvision", reason="timm needs torchvision")
    pytest.importorskip("timm", reason="EdgeTAM's own trunk is one of timm's")
    config = published_config()
    set_image_size(config, 256)
    model = EdgeTamVideoModel(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
    pixels = random(1, 3, 256, 256)
    piece = cut(model)["image_encoder"]
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in piece.modules())
    wanted = model.get_image_features(pixels, return_dict=True).fpn_hidden_states
    for got, want in zip(piece(pixels)[:3], wanted, strict=True):
        assert (rows_in_order(got) - want).abs().max() < TRUNK_TOLERANCE
