# SPDX-License-Identifier: Apache-2.0
"""Where masked objects are: planes, outliers, holes, scale, and the same by loops."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from foreseg.depth import Pinhole, depth_of_mask
from foreseg.errors import InputError

EXACT = 1e-9  # float64 on the way
MAX_SIDE = 12
metres = st.floats(0.125, 64.0, width=32)
cameras = st.builds(
    Pinhole,
    fx=st.floats(10, 2000),
    fy=st.floats(10, 2000),
    cx=st.floats(-5, 20),
    cy=st.floats(-5, 20),
)
shapes = st.tuples(st.integers(1, MAX_SIDE), st.integers(1, MAX_SIDE))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A depth image with holes of every kind, and a mask of its size."""
    shape = draw(shapes)
    holes = st.sampled_from([0.0, math.nan, math.inf, -math.inf, -1.0])
    depth = draw(npst.arrays(np.float32, shape, elements=metres | holes))
    return depth, draw(npst.arrays(np.bool_, shape))


@given(scene=scenes(), camera=cameras)
def test_it_is_the_median_of_each_axis_over_measured_pixels(
    scene: tuple[np.ndarray, np.ndarray], camera: Pinhole
) -> None:
    depth, mask = scene
    points = [
        ((x - camera.cx) * z / camera.fx, (y - camera.cy) * z / camera.fy, z)
        for y, x in zip(*np.nonzero(mask), strict=True)
        for z in [float(depth[y, x])]
        if math.isfinite(z) and z > 0
    ]
    found = depth_of_mask(depth, mask, camera)
    if not points:
        assert found is None
        return
    assert found is not None
    expected = [statistics.median(axis) for axis in zip(*points, strict=True)]
    assert found.point_xyz_m == pytest.approx(expected, rel=EXACT, abs=EXACT)
    assert found.share == len(points) / mask.sum()


@given(scene=scenes(), camera=cameras, factor=st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_a_world_twice_as_far_is_twice_as_far(
    scene: tuple[np.ndarray, np.ndarray], camera: Pinhole, factor: float
) -> None:
    depth, mask = scene
    near, far = (depth_of_mask(d, mask, camera) for d in (depth, depth * np.float32(factor)))
    assert (near is None) == (far is None)
    if near is not None and far is not None:
        scaled = [v * factor for v in near.point_xyz_m]
        assert far.point_xyz_m == pytest.approx(scaled, rel=EXACT, abs=EXACT)


@given(shape=shapes, z=metres, camera=cameras)
def test_a_wall_is_met_at_the_middle_of_the_mask(
    shape: tuple[int, int], z: float, camera: Pinhole
) -> None:
    found = depth_of_mask(np.full(shape, z, np.float32), np.ones(shape, np.bool_), camera)
    assert found is not None
    x, y, distance = found.point_xyz_m
    assert distance == z
    assert x * camera.fx / z + camera.cx == pytest.approx((shape[1] - 1) / 2, abs=1e-6)
    assert y * camera.fy / z + camera.cy == pytest.approx((shape[0] - 1) / 2, abs=1e-6)


def test_of_a_large_mask_a_sample_is_enough() -> None:
    side = 300
    y, x = np.mgrid[:side, :side]
    depth = (2.0 + 0.001 * x + 0.002 * y).astype(np.float32)  # a slanted wall
    camera = Pinhole(fx=200.0, fy=200.0, cx=150.0, cy=150.0)
    found = depth_of_mask(depth, np.ones((side, side), np.bool_), camera)
    assert found is not None
    everywhere = [np.median((x - 150) * depth / 200), np.median((y - 150) * depth / 200)]
    assert found.point_xyz_m[:2] == pytest.approx(everywhere, abs=0.02)
    assert found.point_xyz_m[2] == pytest.approx(np.median(depth), abs=0.02)
    assert found.share == 1.0


@given(data=st.data(), z=metres, camera=cameras)
def test_what_shines_through_less_than_half_of_a_mask_does_not_count(
    data: st.DataObject, z: float, camera: Pinhole
) -> None:
    num = data.draw(st.integers(3, 40))
    num_wrong = data.draw(st.integers(0, (num - 1) // 2))
    depth = np.full((1, num), z, np.float32)
    depth[0, data.draw(st.permutations(range(num)))[:num_wrong]] = data.draw(metres)
    found = depth_of_mask(depth, np.ones((1, num), np.bool_), camera)
    assert found is not None
    assert found.point_xyz_m[2] == z


@given(scene=scenes(), camera=cameras, data=st.data())
def test_a_crop_with_its_corner_gives_the_same(
    scene: tuple[np.ndarray, np.ndarray], camera: Pinhole, data: st.DataObject
) -> None:
    depth, mask = scene
    x0 = data.draw(st.integers(0, mask.shape[1] - 1))
    y0 = data.draw(st.integers(0, mask.shape[0] - 1))
    mask[:y0], mask[:, :x0] = False, False
    whole = depth_of_mask(depth, mask, camera)
    assert depth_of_mask(depth[y0:, x0:], mask[y0:, x0:], camera, (x0, y0)) == whole


def test_another_size_is_refused_with_both() -> None:
    with pytest.raises(InputError, match=r"\(2, 3\), got \(3, 2\)"):
        depth_of_mask(
            np.ones((3, 2), np.float32),
            np.ones((2, 3), np.bool_),
            Pinhole(fx=1.0, fy=1.0, cx=0.0, cy=0.0),
        )


@pytest.mark.parametrize("changed", [{"fx": 0.0}, {"fy": -1.0}, {"cx": math.nan}])
def test_a_camera_that_cannot_be_is_refused(changed: dict[str, float]) -> None:
    with pytest.raises(InputError, match="fx, fy above 0"):
        Pinhole(**({"fx": 1.0, "fy": 1.0, "cx": 0.0, "cy": 0.0} | changed))
