# SPDX-License-Identifier: Apache-2.0
"""One step in the making: the state as it becomes, and the commands so far."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foreseg.frames import CameraId
from foreseg.pipeline.events import Command, Reply, RequestId
from foreseg.pipeline.state import CameraState, State


class Turn:
    """Collects what one event changes; lives only inside `pipeline.step`."""

    def __init__(self, state: State, at_ns: int) -> None:
        self.state = state
        self.at_ns = at_ns
        self.commands: list[Command] = []

    def set(self, **changes: Any) -> None:  # noqa: ANN401 (fields of State, checked by replace)
        """Replace fields of the state."""
        self.state = replace(self.state, **changes)

    def camera(self, camera: CameraId) -> CameraState:
        """One camera's state."""
        return self.state.cameras[camera]

    def set_camera(self, camera: CameraId, **changes: Any) -> CameraState:  # noqa: ANN401
        """Replace fields of one camera's state."""
        changed = replace(self.state.cameras[camera], **changes)
        self.set(cameras={**self.state.cameras, camera: changed})
        return changed

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        if by:
            counters = self.state.counters
            self.set(counters={**counters, name: counters.get(name, 0) + by})

    def emit(self, command: Command) -> None:
        """Want something done."""
        self.commands.append(command)

    def reply(self, request_id: RequestId | None, *, success: bool, message: str = "") -> None:
        """Complete a user's request, if there is one."""
        if request_id is not None:
            self.emit(Reply(request_id=request_id, success=success, message=message))
