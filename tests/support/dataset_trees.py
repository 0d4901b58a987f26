# SPDX-License-Identifier: Apache-2.0
"""Small datasets in the exact official forms, with two moving squares whose masks are known.

Every writer returns what a reader must give back: the union of the true targets, by episode and
annotated position. Object 2 is hidden on one frame.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from foreseg.masks import Mask

SIZE_WH = (40, 30)
NUM_FRAMES = 6
HIDDEN_AT = 2  # object 2
TRAIN2014 = "images/mscoco/images/train2014"
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[90] * 759]  # begins as PASCAL VOC's

Truths = dict[str, dict[int, Mask]]


def square(k: int, t: int, shift: int = 0) -> Mask:
    """Object k = 1 or 2 on frame t; `shift` tells videos apart."""
    mask: Mask = np.zeros(SIZE_WH[::-1], dtype=np.bool_)
    if k == 1:
        mask[3 + shift : 11 + shift, 2 + 3 * t : 11 + 3 * t] = True
    elif t != HIDDEN_AT:
        mask[16 + shift : 22 + shift, 25 - 2 * t : 33 - 2 * t] = True
    return mask


def over_time(ids: Iterable[int], shift: int = 0, step: int = 1) -> dict[int, Mask]:
    """The union of objects by position."""
    ks = tuple(ids)
    empty = np.zeros(SIZE_WH[::-1], dtype=np.bool_)
    return {
        t * step: np.logical_or.reduce([empty, *(square(k, t, shift) for k in ks)])
        for t in range(NUM_FRAMES)
    }


def grey_of(t: int) -> int:
    """The grey value of frame t."""
    return 30 + 8 * t


def frame_names(num: int = NUM_FRAMES, step: int = 1) -> list[str]:
    return [f"{step * t:05d}" for t in range(num)]


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_frames(folder: Path, names: Sequence[str], size_wh: tuple[int, int] = SIZE_WH) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names):
        Image.new("RGB", size_wh, (grey_of(t),) * 3).save(folder / f"{name}.jpg", quality=95)


def write_labels(folder: Path, names: Sequence[str], labels: Sequence[np.ndarray]) -> None:
    """Palette PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in zip(names, labels, strict=True):
        picture = Image.fromarray(one.astype(np.uint8)).convert("L")
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette(PALETTE)
        picture.save(folder / f"{name}.png")


def write_binary(folder: Path, names: Sequence[str], masks: Sequence[Mask]) -> None:
    """Grey PNGs of 0 and 255."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in zip(names, masks, strict=True):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}.png")


def label_maps(shift: int = 0, void_at: int | None = None) -> list[np.ndarray]:
    """Label maps of both objects; the last row of frame `void_at` is void."""
    maps = [1 * square(1, t, shift) + 2 * square(2, t, shift) for t in range(NUM_FRAMES)]
    if void_at is not None:
        maps[void_at][-1] = 255
    return maps


def rle(mask: Mask, *, is_text: bool = True) -> dict[str, object]:
    """COCO's record; as text (JSON) or bytes (pickles)."""
    record = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = record["counts"].decode("ascii") if is_text else record["counts"]
    return {"size": list(record["size"]), "counts": counts}


def rles(k: int, shift: int = 0, *, is_text: bool = True) -> list[dict[str, object] | None]:
    """One record a frame; null where the object is hidden."""
    masks = [square(k, t, shift) for t in range(NUM_FRAMES)]
    return [rle(mask, is_text=is_text) if mask.any() else None for mask in masks]


# ---- run lengths in mask_dict.json ----


def write_mevis(root: Path, split: str = "valid_u") -> Truths:
    folder = root / split
    videos = {}
    for shift, name in enumerate(("0ab4afe7fb46", "1cd5bfe8ac57")):
        write_frames(folder / "JPEGImages" / name, frame_names())
        first = 10 * shift + 1
        videos[name] = {
            "vid_id": shift,
            "frames": frame_names(),
            "expressions": {
                "0": {"exp": "both squares", "obj_id": [0, 1], "anno_id": [first, first + 1]},
                "1": {"exp": "the lower one", "obj_id": [1], "anno_id": [first + 1]},
            },
        }
    write_json(folder / "meta_expressions.json", {"videos": videos})
    masks = {"1": rles(1), "2": rles(2), "11": rles(1, 1), "12": rles(2, 1), "99": [None]}
    write_json(folder / "mask_dict.json", masks)
    return {
        f"{name}/{i}": over_time(ids, shift)
        for shift, name in enumerate(videos)
        for i, ids in enumerate(((1, 2), (2,)))
    }


def write_revos(root: Path) -> Truths:
    name = "MOSE/0a1b"  # sources are folders
    write_frames(root / "JPEGImages" / name, frame_names())
    expressions = {
        "0": {"exp": "both", "obj_id": [1, 2], "anno_id": [7, 8], "type_id": 0},
        "1": {"exp": "what rests?", "obj_id": [2], "anno_id": [8], "type_id": 1},
        "2": {"exp": "the zebra", "obj_id": [], "anno_id": [], "type_id": 2},
    }
    video = {
        "vid_id": 5,
        "height": SIZE_WH[1],
        "width": SIZE_WH[0],
        "frames": frame_names(),
        "expressions": expressions,
    }
    write_json(root / "meta_expressions_valid_.json", {"videos": {name: video}})
    write_json(root / "mask_dict.json", {"7": rles(1), "8": rles(2)})
    union = [rle(mask) for mask in over_time((1, 2)).values()]
    ratios = [float(mask.mean()) for mask in over_time((1, 2)).values()]
    foreground = {name: {"masks_rle": union, "foreground_ratio": ratios}}
    write_json(root / "mask_dict_foreground.json", foreground)
    return {
        f"{name}/0": over_time((1, 2)),
        f"{name}/1": over_time((2,)),
        f"{name}/2": over_time(()),
    }


def write_fevos(root: Path) -> Truths:
    """As the card of the official dataset has it."""
    write_frames(root / "JPEGImages/v1", frame_names())
    video = {
        "vid_id": 1,
        "height": SIZE_WH[1],
        "width": SIZE_WH[0],
        "frames": frame_names(),
        "expressions": {
            "0": {"exp": "What will it hit?", "ans": "the left", "obj_id": [1], "anno_id": [31]},
            "1": {"exp": "Which will fall?", "ans": "both", "obj_id": [1, 2], "anno_id": [31, 32]},
        },
    }
    write_json(root / "meta_expressions_val.json", {"videos": {"v1": video}})
    write_json(root / "mask_dict.json", {"31": rles(1), "32": rles(2)})
    return {"v1/0": over_time((1,)), "v1/1": over_time((1, 2))}


def write_own_fevos(root: Path) -> Truths:
    """As the simulation writes it: kinds, rates, truths over time, rationales."""
    truths = write_fevos(root)
    path = root / "meta_expressions_val.json"
    meta = json.loads(path.read_text("utf-8"))
    video = meta["videos"]["v1"] | {"rate_hz": 15.0, "kind": "stream"}
    first, second = video["expressions"]["0"], video["expressions"]["1"]
    first |= {"type": "descriptive", "skill": "motion", "difficulty": "easy"}
    second |= {
        "type": "foresight",
        "skill": "rebound",
        "difficulty": "hard",
        "truths": [
            {"from_frame": 0, "until_frame": 2, "obj_id": [1], "anno_id": [31], "ans": "left"},
            {"from_frame": 2, "until_frame": 4, "obj_id": [], "anno_id": [], "ans": ""},
            {"from_frame": 5, "until_frame": 6, "obj_id": [2], "anno_id": [32], "ans": "right"},
        ],
    }
    video["expressions"]["2"] = {
        "exp": "What will leave?",
        "ans": "nothing",
        "obj_id": [],
        "anno_id": [],
        "type": "no_target",
    }
    write_json(path, {"videos": {"v1": video}})
    record = {
        "video": "v1",
        "exp_id": "1",
        "question": second["exp"],
        "reasoning": "It rolls on. So it falls.",
        "answer": "both",
        "evidence": {"keyframe": "00003"},
    }
    reasoning = {"format": "foreseg", "version": 1, "records": [record]}
    write_json(root / "reasoning_data.json", reasoning)
    both = {t: square(1, t) if t < 2 else square(2, t) & (t == 5) for t in range(NUM_FRAMES)}
    return truths | {"v1/1": both, "v1/2": over_time(())}


# ---- label maps and binary PNGs ----


def write_ref_youtube_vos(root: Path) -> Truths:
    """The train split."""
    names = frame_names(step=5)
    write_frames(root / "train/JPEGImages/00f88c4f0a", names)
    write_labels(root / "train/Annotations/00f88c4f0a", names, label_maps())
    expressions = {"0": {"exp": "a box", "obj_id": "1"}, "1": {"exp": "a slab", "obj_id": "2"}}
    video = {"expressions": expressions, "frames": names}
    write_json(
        root / "meta_expressions/train/meta_expressions.json", {"videos": {"00f88c4f0a": video}}
    )
    objects = {k: {"category": "box", "frames": names} for k in ("1", "2")}
    write_json(root / "train/meta.json", {"videos": {"00f88c4f0a": {"objects": objects}}})
    return {"00f88c4f0a/0": over_time((1,)), "00f88c4f0a/1": over_time((2,))}


def write_ref_youtube_vos_valid(root: Path, *, has_truth: bool) -> Truths:
    """The valid split, whose list has the test split's video in it, too."""
    names = frame_names(step=5)
    video = {"expressions": {"0": {"exp": "a box"}, "1": {"exp": "a slab"}}, "frames": names}
    write_frames(root / "valid/JPEGImages/0062f687f1", names)
    both = {"0062f687f1": video, "ffff0001": video}
    write_json(root / "meta_expressions/valid/meta_expressions.json", {"videos": both})
    write_json(
        root / "meta_expressions/test/meta_expressions.json", {"videos": {"ffff0001": video}}
    )
    if not has_truth:
        return {"0062f687f1/0": {}, "0062f687f1/1": {}}
    for k in (1, 2):
        folder = root / f"valid/Annotations/0062f687f1/{k - 1}"
        write_binary(folder, names, [square(k, t) for t in range(NUM_FRAMES)])
    return {"0062f687f1/0": over_time((1,)), "0062f687f1/1": over_time((2,))}


def write_ref_davis(root: Path, *, void_at: int | None = None) -> Truths:
    """Converted to Ref-YouTube-VOS' form: expression = object * 4 + annotator."""
    names = frame_names()
    write_frames(root / "valid/JPEGImages/goat", names)
    write_labels(root / "valid/Annotations/goat", names, label_maps(void_at=void_at))
    expressions = {
        str(4 * (k - 1) + annotator): {"exp": f"square {k}, {annotator}", "obj_id": str(k)}
        for k in (1, 2)
        for annotator in range(4)
    }
    video = {"expressions": expressions, "frames": names}
    meta = {"videos": {"goat": video}}
    write_json(root / "meta_expressions/valid/meta_expressions.json", meta)
    objects = {k: {"category": "square", "frames": names} for k in ("1", "2")}
    write_json(root / "valid/meta.json", {"videos": {"goat": {"objects": objects}}})
    return {f"goat/{4 * (k - 1) + i}": over_time((k,)) for k in (1, 2) for i in range(4)}


def write_ref_davis_pickled(root: Path) -> Truths:
    """Two videos of twelve expressions: numbers run in the order of texts, so "10" before "2"."""
    names = frame_names()
    videos, masks, truths = {}, {}, {}
    for shift, name in enumerate(("bear", "goat")):
        write_frames(root / "valid/JPEGImages" / name, names)
        of = {str(i): 1 + i // 6 for i in range(12)}  # object of an expression
        videos[name] = {
            "expressions": {i: {"exp": f"square {i}", "obj_id": str(k)} for i, k in of.items()},
            "frames": names,
        }
        for i in sorted(of):
            masks[str(len(masks))] = rles(of[i], shift, is_text=False)
        truths |= {f"{name}/{i}": over_time((k,), shift) for i, k in of.items()}
    reverse = dict(reversed(videos.items()))  # the file's order does not count
    write_json(root / "meta_expressions/valid/meta_expressions.json", {"videos": reverse})
    (root / "valid/mask_dict.pkl").write_bytes(pickle.dumps(masks))
    return truths


def write_ref_davis_texts(root: Path) -> Truths:
    """The published texts beside DAVIS 2017, with a misspelt name and a Latin-1 letter."""
    write_frames(root / "DAVIS/JPEGImages/480p/dogs-scale", frame_names())
    write_labels(
        root / "DAVIS/Annotations_unsupervised/480p/dogs-scale",
        frame_names(),
        label_maps(void_at=1),
    )
    (root / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (root / "DAVIS/ImageSets/2017/val.txt").write_text("dogs-scale\n")
    folder = root / "davis_text_annotations"
    folder.mkdir()
    for annotator, encoding in ((1, "utf-8"), (2, "latin-1")):
        for suffix in ("", "_full_video"):
            lines = [f'dog-scale {k} "a caf\u00e9 {k} {annotator}{suffix}"' for k in (1, 2)]
            path = folder / f"Davis17_annot{annotator}{suffix}.txt"
            path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return {f"dogs-scale/{4 * (k - 1) + i}": over_time((k,)) for k in (1, 2) for i in range(4)}


def write_reason_vos(root: Path) -> Truths:
    names = frame_names()
    write_frames(root / "JPEGImages/12_abc", names)
    expressions = []
    for k in (1, 2):
        kept = names if k == 1 else names[::2]  # masks of some frames only
        masks = [square(k, int(name)) for name in kept]
        write_binary(root / f"Annotations/BURST_12_abc_{k}", kept, masks)
        expressions += [
            {"obj_id": k, "exp_id": i, "exp_text": f"why {k} {i}", "is_sent": True}
            for i in range(2)
        ]
    video = {"source": "BURST", "frames": names, "expressions": expressions}
    write_json(root / "meta_expressions.json", {"videos": {"12_abc": video}})
    second = {t: mask for t, mask in over_time((2,)).items() if t % 2 == 0}
    return {
        f"12_abc/{k}/{i}": over_time((1,)) if k == 1 else second for k in (1, 2) for i in range(2)
    }


# ---- objects given by their first masks ----


def write_davis2016(root: Path) -> Truths:
    write_frames(root / "JPEGImages/480p/car", frame_names())
    masks = list(over_time((1, 2)).values())
    write_binary(root / "Annotations/480p/car", frame_names(), masks)
    (root / "ImageSets/480p").mkdir(parents=True)
    lines = [f"/JPEGImages/480p/car/{n}.jpg /Annotations/480p/car/{n}.png" for n in frame_names()]
    (root / "ImageSets/480p/val.txt").write_text("\n".join(lines) + "\n")
    return {"car": over_time((1, 2))}


def write_davis2017(root: Path) -> Truths:
    write_frames(root / "JPEGImages/480p/goat", frame_names())
    write_labels(root / "Annotations/480p/goat", frame_names(), label_maps(void_at=1))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("goat\n")
    return {"goat": over_time((1, 2))}


def write_sa_v(root: Path) -> Truths:
    """The val split: every fourth frame annotated."""
    write_frames(root / "JPEGImages_24fps/sav_000262", frame_names(4 * NUM_FRAMES - 2))
    for k in (1, 2):
        folder = root / f"Annotations_6fps/sav_000262/{k - 1:03d}"
        write_binary(folder, frame_names(step=4), [square(k, t) for t in range(NUM_FRAMES)])
    (root / "sav_val.txt").write_text("sav_000262\n")
    return {"sav_000262": over_time((1, 2), step=4)}


def write_sa_v_train(root: Path) -> Truths:
    """The train split without its MP4: empty masks are run lengths, numbers are floats."""
    rows = [[rle(square(k, t)) for k in (1, 2)] for t in range(NUM_FRAMES)]
    record = {
        "video_id": "sav_000009",
        "video_frame_count": float(4 * NUM_FRAMES - 2),
        "video_height": float(SIZE_WH[1]),
        "video_width": float(SIZE_WH[0]),
        "masklet": rows,
        "masklet_id": [0, 1],
        "masklet_first_appeared_frame": [0.0, 0.0],
    }
    write_json(root / "sav_000/sav_000009_manual.json", record)
    return {"sav_000009": over_time((1, 2), step=4)}


# ---- images ----


def write_reason_seg(root: Path) -> Truths:
    """A large target under a small ignored region, and a target on top of that."""
    folder = root / "val"
    write_frames(folder, ["street"])

    def box(x0: int, y0: int, x1: int, y1: int) -> list[list[float]]:
        return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]

    shapes = [
        {"label": "target", "points": box(12, 12, 14, 14)},
        {"label": "Ignore", "points": box(10, 10, 16, 16)},
        {"label": "target", "points": box(2, 2, 30, 25)},
        {"label": "flag", "points": box(0, 0, 39, 29)},
    ]
    record = {"shapes": shapes, "text": ["what is wet?", "unused"], "is_sentence": True}
    text = json.dumps(record, ensure_ascii=False).replace("wet", "wet \u2013 or dry")
    (folder / "street.json").write_text(text, encoding="cp1252")
    mask: Mask = np.zeros(SIZE_WH[::-1], dtype=np.bool_)
    mask[2:26, 2:31] = True
    mask[10:17, 10:17] = False
    mask[12:15, 12:15] = True
    return {"street/0": {0: mask}}


def _write_coco(root: Path, name: str) -> None:
    """Three annotations on one image: two boxes (polygons) and a crowd (runs)."""
    write_frames(root / TRAIN2014, ["COCO_train2014_000000000072"])
    image = {
        "id": 72,
        "file_name": "COCO_train2014_000000000072.jpg",
        "width": SIZE_WH[0],
        "height": SIZE_WH[1],
    }
    runs = np.diff(np.flatnonzero(np.diff(square(1, 0).T.reshape(-1))) + 1).tolist()
    first = int(np.flatnonzero(square(1, 0).T.reshape(-1))[0])
    counts = [first, *runs, SIZE_WH[0] * SIZE_WH[1] - first - sum(runs)]
    annotations = [
        {"id": 501, "image_id": 72, "iscrowd": 0, "segmentation": [[5, 4, 15, 4, 15, 12, 5, 12]]},
        {"id": 502, "image_id": 72, "iscrowd": 0, "segmentation": [[20, 4, 30, 4, 30, 9, 20, 9]]},
        {
            "id": 503,
            "image_id": 72,
            "iscrowd": 1,
            "segmentation": {"size": list(SIZE_WH[::-1]), "counts": counts},
        },
        {"id": 504, "image_id": 72, "iscrowd": 0, "segmentation": []},
    ]
    record = {"images": [image], "annotations": annotations, "categories": []}
    write_json(root / name / "instances.json", record)


def _coco_mask(*ids: int) -> Mask:
    mask: Mask = np.zeros(SIZE_WH[::-1], dtype=np.bool_)
    if 501 in ids:
        mask[4:12, 5:15] = True
    if 502 in ids:
        mask[4:9, 20:30] = True
    if 503 in ids:
        mask |= square(1, 0)
    return mask


def _ref(ref_id: int, ann_id: object, sent_ids: list[int], split: str) -> dict[str, object]:
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "category_id": 1,
        "image_id": 72,
        "file_name": f"COCO_train2014_000000000072_{ref_id}.jpg",  # of the ref, not of the image
        "split": split,
        "sent_ids": sent_ids,
        "sentences": [
            {"sent_id": i, "sent": f"box {i} ", "raw": f"Box {i}", "tokens": ["box", str(i)]}
            for i in sent_ids
        ],
    }


def write_refcoco(root: Path, name: str = "refcoco", refs: str = "refs(unc).p") -> Truths:
    _write_coco(root, name)
    listed = [
        _ref(1, 501, [10, 11], "val"),
        _ref(2, 502, [12], "train"),
        _ref(3, 503, [13], "val"),
        _ref(4, 504, [14], "val"),
    ]
    (root / name / refs).write_bytes(pickle.dumps(listed, protocol=2))
    image = "COCO_train2014_000000000072"
    targets = {10: (501,), 11: (501,), 13: (503,), 14: ()}
    return {f"{image}/{i}": {0: _coco_mask(*ids)} for i, ids in targets.items()}


def write_refcoco_plus(root: Path) -> Truths:
    return write_refcoco(root, "refcoco+")


def write_refcocog(root: Path) -> Truths:
    return write_refcoco(root, "refcocog", "refs(umd).p")


def write_grefcoco(root: Path) -> Truths:
    _write_coco(root, "grefcoco")
    listed = [_ref(1, [501, 502], [20], "val"), _ref(2, [-1], [21], "val")]
    write_json(root / "grefcoco/grefs(unc).json", listed)
    image = "COCO_train2014_000000000072"
    return {f"{image}/20": {0: _coco_mask(501, 502)}, f"{image}/21": {0: _coco_mask()}}


Writer = Callable[[Path], Truths]

# a tree of every form: form, split, writer
TREES: dict[str, tuple[str, str, Writer]] = {
    "fevos": ("fevos", "val", write_fevos),
    "own fevos": ("fevos", "val", write_own_fevos),
    "revos": ("revos", "valid", write_revos),
    "mevis": ("mevis", "valid_u", write_mevis),
    "ref_youtube_vos": ("ref_youtube_vos", "train", write_ref_youtube_vos),
    "ref_youtube_vos valid": (
        "ref_youtube_vos",
        "valid",
        lambda root: write_ref_youtube_vos_valid(root, has_truth=False),
    ),
    "ref_youtube_vos valid, later": (
        "ref_youtube_vos",
        "valid",
        lambda root: write_ref_youtube_vos_valid(root, has_truth=True),
    ),
    "ref_davis": ("ref_davis", "valid", write_ref_davis),
    "ref_davis pickled": ("ref_davis", "valid", write_ref_davis_pickled),
    "ref_davis_classic": (
        "ref_davis_classic",
        "valid",
        lambda root: write_ref_davis(root, void_at=1),
    ),
    "ref_davis_classic texts": ("ref_davis_classic", "valid", write_ref_davis_texts),
    "reason_vos": ("reason_vos", "test", write_reason_vos),
    "davis2016": ("davis2016", "val", write_davis2016),
    "davis2017": ("davis2017", "val", write_davis2017),
    "sa_v": ("sa_v", "val", write_sa_v),
    "sa_v train": ("sa_v", "train", write_sa_v_train),
    "reason_seg": ("reason_seg", "val", write_reason_seg),
    "refcoco": ("refcoco", "val", write_refcoco),
    "refcoco_plus": ("refcoco_plus", "val", write_refcoco_plus),
    "refcocog": ("refcocog", "val", write_refcocog),
    "grefcoco": ("grefcoco", "val", write_grefcoco),
}
