# SPDX-License-Identifier: Apache-2.0
"""A compiled stage: its physics, its record over time, and its rendering.

Does not know: the plot, or what a question is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from foreseg_simulation.textures import U8Array

from .graphics import load_mujoco, rendering_error
from .stage import STEP_NS, STEP_S, F64Array, Stage

_NS_PER_S = 1_000_000_000
_LENS_PX = 0.55  # blur; multisampling instead takes three times as long without a GPU

Drive = Callable[[float], None]  # from seconds: sets what the plot moves


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """The world at the time of one frame.

    Attributes:
        stamp_ns: of the frame.
        state: all that physics and rendering need.
        places: (bodies, 3) metres.
        velocities: (bodies, 3) metres per second, over the next step.
    """

    stamp_ns: int
    state: F64Array
    places: F64Array
    velocities: F64Array


class World:
    """Physics of one stage, step by step, with a frame due now and then."""

    def __init__(self, stage: Stage, rate_hz: float) -> None:
        self._mujoco: Any = load_mujoco()
        self._rate_hz = rate_hz
        self.camera = stage.camera
        self.model = self._mujoco.MjModel.from_xml_string(stage.text, dict(stage.files))
        self.data = self._mujoco.MjData(self.model)
        self._kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._size = self._mujoco.mj_stateSize(self.model, self._kind)
        self.owner = self._owners()
        self._owners_of_geoms: list[int] = self.owner.tolist()
        self.num_steps = 0
        self.num_frames = 0

    @property
    def time_s(self) -> float:
        """Seconds since the beginning."""
        return self.num_steps * STEP_S

    @property
    def time_ns(self) -> int:
        """Nanoseconds since the beginning."""
        return self.num_steps * STEP_NS

    def body(self, name: str) -> int:
        """Row of a body in `Shot.places`."""
        return int(self.model.body(name).id)

    def joint(self, name: str) -> tuple[int, int]:
        """First address of a joint in `data.qpos`, and in `data.qvel`."""
        joint = self.model.joint(name)
        return int(joint.qposadr[0]), int(joint.dofadr[0])

    def put(self, name: str, place: F64Array, quat: F64Array | None = None) -> None:
        """Place a driven body."""
        row = self.model.body(name).mocapid[0]
        self.data.mocap_pos[row] = place
        if quat is not None:
            self.data.mocap_quat[row] = quat

    def throw(self, joint: str, linear: F64Array, angular: F64Array) -> None:
        """Set the velocity of a free body; both vectors in world axes."""
        place, speed = self.joint(joint)
        back = self.data.qpos[place + 3 : place + 7] * (1, -1, -1, -1)
        self.data.qvel[speed : speed + 3] = linear
        self._mujoco.mju_rotVecQuat(self.data.qvel[speed + 3 : speed + 6], angular, back)

    def save(self) -> tuple[F64Array, int, int]:
        """Take a state to `restore`."""
        return self._state(), self.num_steps, self.num_frames

    def restore(self, saved: tuple[F64Array, int, int]) -> None:
        """Go back."""
        state, self.num_steps, self.num_frames = saved
        self._mujoco.mj_setState(self.model, self.data, state, self._kind)

    def places_of(self, state: F64Array) -> F64Array:
        """Places (bodies, 3) in a state; forgets the present one."""
        self._mujoco.mj_setState(self.model, self.data, state, self._kind)
        self._mujoco.mj_kinematics(self.model, self.data)
        return np.array(self.data.xpos)

    def run(
        self, until_s: float, drive: Drive | None = None, done: Callable[[], bool] | None = None
    ) -> list[Shot]:
        """Step until `done`, which sees fresh contacts, or the time; return the frames passed."""
        mj, model, data = self._mujoco, self.model, self.data
        last = round(until_s / STEP_S)
        shots = []
        while self.num_steps < last:
            if drive is not None:
                drive(self.time_s)
            mj.mj_step1(model, data)
            if done is not None and done():
                break
            stamps = self._due()
            if stamps:
                state, places = self._state(), data.xpos.copy()
            mj.mj_step2(model, data)
            self.num_steps += 1
            if stamps:
                if drive is not None:
                    drive(self.time_s)
                mj.mj_kinematics(model, data)
                velocities = (data.xpos - places) / STEP_S
                shots += [
                    Shot(stamp_ns=s, state=state, places=places, velocities=velocities)
                    for s in stamps
                ]
        return shots

    def touching(self, instance_id: int) -> set[int]:
        """Ids that touch one instance; 0 is whatever has no id."""
        found = set()
        for one, other in self.data.contact.geom.tolist():
            a, b = self._owners_of_geoms[one], self._owners_of_geoms[other]
            if a == instance_id:
                found.add(b)
            elif b == instance_id:
                found.add(a)
        return found

    def corners(self, instance_id: int) -> F64Array:
        """Corners (8 N, 3) of the boxes around the geoms of one instance, as it is now."""
        signs = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
        found = []
        for geom in np.flatnonzero(self.owner == instance_id):
            box = self.model.geom_aabb[geom]
            local = box[:3] + signs * box[3:]
            turn = self.data.geom_xmat[geom].reshape(3, 3)
            found.append(self.data.geom_xpos[geom] + local @ turn.T)
        return np.concatenate(found)

    def _due(self) -> list[int]:
        """Stamps of the frames within the coming step."""
        stamps = []
        end_ns = self.time_ns + STEP_NS
        while (stamp_ns := round(self.num_frames * _NS_PER_S / self._rate_hz)) < end_ns:
            stamps.append(stamp_ns)
            self.num_frames += 1
        return stamps

    def _state(self) -> F64Array:
        state = np.empty(self._size)
        self._mujoco.mj_getState(self.model, self.data, state, self._kind)
        return state

    def _owners(self) -> U8Array:
        """Instance id (geoms,) of every geom: that of the nearest body called `o{id}` or `o{id}_...`."""
        owners = np.zeros(self.model.ngeom, dtype=np.uint8)
        for geom, body in enumerate(self.model.geom_bodyid):
            row = int(body)
            while row:
                name = self.model.body(row).name
                head = name.partition("_")[0]
                if head[:1] == "o" and head[1:].isdigit():
                    owners[geom] = int(head[1:])
                    break
                row = int(self.model.body_parentid[row])
        return owners


class Renderer:
    """Colours and instance ids of a world's states; close it.

    Without `needs_images` all is black: colours with their shadows take five times as long as ids.

    Raises:
        StreamError: nothing here can render.
    """

    def __init__(self, world: World, *, needs_images: bool = True) -> None:
        self._needs_images = needs_images
        self._mujoco: Any = load_mujoco()
        self._model = world.model
        self._data = self._mujoco.MjData(world.model)
        self._owner = np.append(world.owner, np.uint8(0))  # -1 is the background
        width, height = world.camera.size_wh
        try:
            self._inner = self._mujoco.Renderer(world.model, height, width)
        except (RuntimeError, ImportError, AttributeError, self._mujoco.FatalError) as error:
            raise rendering_error(error) from error

    def render(self, state: F64Array) -> tuple[U8Array, U8Array]:
        """Image (H, W, 3) RGB and instance ids (H, W)."""
        mj = self._mujoco
        mj.mj_setState(self._model, self._data, state, mj.mjtState.mjSTATE_INTEGRATION)
        mj.mj_kinematics(self._model, self._data)
        mj.mj_comPos(self._model, self._data)
        mj.mj_camlight(self._model, self._data)
        self._inner.update_scene(self._data, "view")
        image = self._colours()
        self._inner.enable_segmentation_rendering()
        geoms = self._inner.render()[..., 0]
        self._inner.disable_segmentation_rendering()
        return image, self._owner[geoms]

    def _colours(self) -> U8Array:
        if not self._needs_images:
            return np.zeros((self._inner.height, self._inner.width, 3), np.uint8)
        return cv2.GaussianBlur(self._inner.render(), (3, 3), _LENS_PX)

    def close(self) -> None:
        """Give the graphics memory back."""
        self._inner.close()
