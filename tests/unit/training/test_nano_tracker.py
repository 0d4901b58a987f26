# SPDX-License-Identifier: Apache-2.0
"""The nano tracker: its architecture streams, saves, loads, and trains."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the nano tracker's training needs torch")
pytest.importorskip("transformers", reason="the nano tracker is built from transformers")

from tests.support.sam2_models import make_frame  # noqa: E402
from transformers.models.sam2_video.modeling_sam2_video import (  # noqa: E402
    Sam2VideoInferenceSession,
)

from foreseg_torch.tracker.nano_tracker import (  # noqa: E402
    NanoTrackerConfig,
    build_nano_tracker,
    load_nano_tracker,
    read_nano_tracker_config,
    save_nano_tracker,
)

SMALL = NanoTrackerConfig(image_size=64, widths=(8, 8, 16, 16), hidden_size=128)
LOGIT_TOLERANCE = 1e-3  # float32 sums in another order; logits are of the order of 1 to 10


@pytest.fixture(scope="module")
def small_model():  # noqa: ANN201
    torch.set_num_threads(1)  # two threads on two busy cores wait for each other
    torch.manual_seed(3)
    return build_nano_tracker(SMALL)


def stream(model, pixels, points, labels):  # noqa: ANN001, ANN201
    """Track one object through (T, 3, S, S) with transformers' own session."""
    size = model.image_size
    session = Sam2VideoInferenceSession(
        video=None, video_height=size, video_width=size, dtype=torch.float32
    )
    row = session.obj_id_to_idx(1)
    if points is None:
        session.add_mask_inputs(row, 0, labels)
    else:
        session.add_point_inputs(row, 0, {"point_coords": points, "point_labels": labels})
    session.obj_with_new_inputs = [1]
    return [model(inference_session=session, frame=frame) for frame in pixels]


def test_default_model_stays_within_four_million_parameters() -> None:
    model = build_nano_tracker(NanoTrackerConfig())
    assert sum(p.numel() for p in model.parameters()) <= 4_000_000


def test_bad_geometry_is_refused_with_the_value() -> None:
    with pytest.raises(ValueError, match="100"):
        NanoTrackerConfig(image_size=100)
    with pytest.raises(ValueError, match="96"):
        NanoTrackerConfig(hidden_size=96)


def test_checkpoint_keeps_config_and_weights(small_model, tmp_path: Path) -> None:  # noqa: ANN001
    path = tmp_path / "small.safetensors"
    save_nano_tracker(small_model, SMALL, path, dtype=torch.float32, notes={"made_by": "test"})
    assert read_nano_tracker_config(path) == SMALL
    loaded = load_nano_tracker(path).state_dict()
    for name, value in small_model.state_dict().items():
        assert torch.equal(loaded[name], value), name


@torch.no_grad()
@pytest.mark.parametrize("presence", [2.0, 0.0, -2.0])
@pytest.mark.parametrize("kind", ["box", "point", "points", "box and points", "mask"])
def test_training_unroll_equals_streaming(
    small_model,  # noqa: ANN001
    kind: str,
    presence: float,
) -> None:
    from foreseg_training.tracker.batches import Batch, PromptKind, prompt_points
    from foreseg_training.tracker.unroll import unroll

    small_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(presence)
    rng = np.random.default_rng(5)
    pixels = torch.from_numpy(rng.normal(size=(1, 10, 3, 64, 64)).astype(np.float32))
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:44, 12:40] = True
    points, labels = prompt_points(rng, [mask], PromptKind(kind))
    targets = torch.from_numpy(np.stack([mask] * 10)[None]).float()
    batch = Batch(
        pixels=pixels,
        rows=torch.zeros(1, dtype=torch.int64),
        targets=targets,
        kind=PromptKind(kind),
        points=points,
        labels=labels,
    )
    prompt = targets[:, 0:1] if points is None else labels
    streamed = stream(small_model, pixels[0], points, prompt)
    for t, (mine, theirs) in enumerate(
        zip(unroll(small_model.eval(), batch), streamed, strict=True)
    ):
        if kind == "mask" and t == 0:
            continue  # streaming gives the prompt back instead of a prediction
        logit = float(mine.object_logits[0])
        assert logit == pytest.approx(
            float(theirs.object_score_logits.squeeze()), abs=LOGIT_TOLERANCE
        )
        if logit > 0:
            chosen = mine.masks[0, mine.selected[0]].detach()
            difference = float((chosen - theirs.pred_masks[0, 0]).abs().max())
            assert difference < LOGIT_TOLERANCE, f"frame {t}: {difference}"
        else:
            assert float(theirs.pred_masks.max()) < -1000


@contextlib.contextmanager
def product_tracker(model):  # noqa: ANN001, ANN201
    """The product's tracker over a model, in torch."""
    from foreseg.tracker.sam2 import Sam2Tracker
    from foreseg_export.checkpoints import Checkpoint
    from foreseg_export.sam2 import geometry_of
    from foreseg_torch.tracker.engine import torch_bundle

    checkpoint = Checkpoint(
        model=model,
        name="small",
        path=Path(),
        pixel_mean=SMALL.pixel_mean,
        pixel_std=SMALL.pixel_std,
    )
    with torch_bundle(model, geometry_of(checkpoint), name="small") as bundle:
        yield Sam2Tracker(bundle)


@torch.no_grad()
def tracked_with_a_click(model, frames, box, xy, label):  # noqa: ANN001, ANN201
    """Logits of each frame as the product's tracker gives them, clicked on frame 3."""
    from foreseg.geometry import BoxXyxy
    from foreseg.prompts import Point, SpatialPrompt
    from foreseg.tracker.base import TrackKey

    key, theirs = TrackKey("a"), []
    with product_tracker(model) as tracker:
        for frame in frames:
            if frame.index == 0:
                tracker.prompt(frame, key, SpatialPrompt(box=BoxXyxy(*box)))
            else:
                tracker.track(frame, [key])
            if frame.index == 3:
                click = Point(*xy, label)
                tracker.prompt(frame, key, SpatialPrompt(points=(click,)))
            theirs.append(torch.from_numpy(tracker.logits_of(key)))
    return theirs


@torch.no_grad()
def test_a_correcting_click_in_training_does_what_the_tracker_does(small_model) -> None:  # noqa: ANN001
    from foreseg.prompts import PointLabel
    from foreseg_training.tracker import unroll as unrolling
    from foreseg_training.tracker.batches import Batch, PromptKind, normalise

    model = small_model.eval()
    model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(2.0)
    frames = [make_frame(i, size_wh=(64, 64)) for i in range(7)]
    box = (12.0, 20.0, 40.0, 44.0)
    batch = Batch(
        pixels=normalise(
            np.stack([f.image for f in frames])[None], SMALL.pixel_mean, SMALL.pixel_std
        ),
        rows=torch.zeros(1, dtype=torch.int64),
        targets=torch.zeros(1, 7, 64, 64),
        kind=PromptKind.BOX,
        points=torch.tensor(box).reshape(1, 1, 2, 2),
        labels=torch.tensor([[[2, 3]]], dtype=torch.int32),
        refine_at=3,
        click_seed=4,
    )
    clicked = []

    def recorded(*arguments):  # noqa: ANN002, ANN202
        clicked.append(correcting_clicks(*arguments))
        return clicked[-1]

    correcting_clicks = unrolling.correcting_clicks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unrolling, "correcting_clicks", recorded)
        mine = [step.masks[0, step.selected[0]] for step in unrolling.unroll(model, batch)]
    (points, labels) = clicked[0]
    x, y = points[0, 0, 0].tolist()
    theirs = tracked_with_a_click(model, frames, box, (x, y), PointLabel(int(labels[0, 0, 0])))
    unrefined = [
        step.masks[0, step.selected[0]]
        for step in unrolling.unroll(model, dataclasses.replace(batch, refine_at=None))
    ]
    apart = [float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True)]
    moved = [float((a - b).abs().max()) for a, b in zip(mine, unrefined, strict=True)]
    assert max(apart) < LOGIT_TOLERANCE, apart
    assert moved[:3] == [0, 0, 0]
    assert moved[3] > 10 * LOGIT_TOLERANCE
    assert min(moved[4:]) > 2 * LOGIT_TOLERANCE, moved  # what it remembers differs too


@torch.no_grad()
def test_clicks_on_a_mask_in_training_do_what_the_tracker_does(small_model) -> None:  # noqa: ANN001
    from foreseg.masks import rle_from_mask
    from foreseg.prompts import Point, PointLabel, SpatialPrompt
    from foreseg.tracker.base import TrackKey
    from foreseg_training.tracker.batches import Batch, PromptKind, normalise
    from foreseg_training.tracker.unroll import unroll

    model = small_model.eval()
    model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(2.0)
    frames = [make_frame(i, size_wh=(64, 64)) for i in range(3)]
    drawn = np.zeros((64, 64), np.bool_)
    drawn[20:44, 12:40] = True
    clicks = [(15.0, 22.0, 1), (44.0, 30.0, 1), (30.0, 50.0, 0)]

    def in_training(count: int, *, is_drawn: bool = True) -> list[torch.Tensor]:
        points = torch.tensor([[x, y] for x, y, _ in clicks[:count]])[None, None]
        batch = Batch(
            pixels=normalise(
                np.stack([f.image for f in frames])[None], SMALL.pixel_mean, SMALL.pixel_std
            ),
            rows=torch.zeros(1, dtype=torch.int64),
            targets=torch.zeros(1, 3, 64, 64),
            kind=PromptKind.MASK_POINTS,
            points=points,
            labels=torch.tensor([[[label for _, _, label in clicks[:count]]]], dtype=torch.int32),
            drawn=torch.from_numpy(drawn.astype(np.float32))[None] if is_drawn else None,
        )
        return [step.masks[0, step.selected[0]] for step in unroll(model, batch)]

    key = TrackKey("a")
    with product_tracker(model) as tracker:
        tracker.prompt(frames[0], key, SpatialPrompt(mask=rle_from_mask(drawn)))
        for count, (x, y, label) in enumerate(clicks, start=1):
            tracker.prompt(frames[0], key, SpatialPrompt(points=(Point(x, y, PointLabel(label)),)))
            apart = torch.from_numpy(tracker.logits_of(key)) - in_training(count)[0]
            assert float(apart.abs().max()) < LOGIT_TOLERANCE
        for frame, mine in zip(frames[1:], in_training(3)[1:], strict=True):
            tracker.track(frame, [key])
            apart = torch.from_numpy(tracker.logits_of(key)) - mine
            assert float(apart.abs().max()) < LOGIT_TOLERANCE
    unseen = in_training(3, is_drawn=False)[0] - in_training(3)[0]
    assert float(unseen.abs().max()) > 10 * LOGIT_TOLERANCE, "the mask makes no difference"


def test_a_mask_is_drawn_inexactly_and_clicked_where_it_is_wrong() -> None:
    from foreseg_training.tracker.batches import correcting_clicks, inexact

    truth = np.zeros((64, 64), np.bool_)
    truth[20:44, 12:40] = True
    overlaps = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        drawn = inexact(rng, truth)
        assert drawn.dtype == np.bool_
        assert drawn.any()
        overlaps.append((drawn & truth).sum() / (drawn | truth).sum())
        points, labels = correcting_clicks(rng, drawn[None], truth[None])
        x, y = map(int, points[0, 0, 0])
        assert int(labels[0, 0, 0]) == int(truth[y, x])
        assert drawn[y, x] != truth[y, x] or (drawn == truth).all()
    assert 3 < sum(overlap == 1 for overlap in overlaps) < 20
    assert 0.5 < np.mean(overlaps) < 0.9
    dot = np.zeros((64, 64), np.bool_)
    dot[5, 5] = True
    assert all(inexact(np.random.default_rng(seed), dot).any() for seed in range(60))


@pytest.mark.slow
def test_a_short_training_changes_the_weights_and_leaves_a_checkpoint_that_loads(
    tmp_path: Path,
) -> None:
    from foreseg_training.tracker.loop import TrainingConfig, train

    torch.set_num_threads(1)
    config = TrainingConfig(out=tmp_path, minutes=0.05, num_held_out=1, score_every_s=1.0)
    best = train(config, SMALL)
    read = read_nano_tracker_config(best)  # its image size is that of the last stage reached
    assert dataclasses.replace(read, image_size=SMALL.image_size) == SMALL
    assert (tmp_path / "state.pt").exists()
    torch.manual_seed(config.seed)
    untrained = build_nano_tracker(read).state_dict()
    trained = load_nano_tracker(best).state_dict()
    changed = [n for n, v in trained.items() if not torch.equal(v, untrained[n].to(v.dtype))]
    assert len(changed) > len(trained) / 2
    assert all(torch.isfinite(value).all() for value in trained.values())

    going_on = TrainingConfig(
        out=tmp_path / "more", start=best, minutes=0.001, num_held_out=1, peak_rate=1e-9
    )
    again = load_nano_tracker(train(going_on, SMALL)).state_dict()
    same = [
        n for n, v in again.items() if torch.allclose(v.float(), trained[n].float(), atol=1e-3)
    ]
    assert len(same) >= len(again) - 1 - sum("running_" in name for name in again)


def test_where_absent_begins_is_set_by_how_many_visible_objects_may_be_lost() -> None:
    from foreseg_training.tracker.batches import Batch, PromptKind
    from foreseg_training.tracker.presence import set_presence
    from foreseg_training.tracker.unroll import unroll

    torch.manual_seed(5)
    model = build_nano_tracker(SMALL)
    targets = torch.zeros(6, 4, 64, 64)
    targets[:, :, 10:30, 10:40] = 1
    targets[0, 2] = 0  # one leaves
    batch = Batch(
        pixels=torch.randn(3, 4, 3, 64, 64),
        rows=torch.arange(3).repeat_interleave(2),
        targets=targets,
        kind=PromptKind.BOX,
        points=torch.tensor([[[[10.0, 10.0], [40.0, 30.0]]]]).expand(6, -1, -1, -1),
        labels=torch.tensor([[[2, 3]]], dtype=torch.int32).expand(6, -1, -1),
    )
    bias = model.mask_decoder.pred_obj_score_head.proj_out.bias
    before = float(bias.detach())
    shift = set_presence(model, [batch], max_lost=0.25)
    assert float(bias.detach()) == pytest.approx(before + shift)
    with torch.no_grad():
        scores = torch.stack([output.object_logits for output in unroll(model, batch)])[1:]
    visible = targets[:, 1:].flatten(2).any(dim=2).T
    assert float((scores <= 0)[visible].float().mean()) == pytest.approx(0.25, abs=0.1)
