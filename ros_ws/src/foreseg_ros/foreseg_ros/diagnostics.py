# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says of the node and its worker, and whether large images come through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from foreseg.commands import fast_dds
from foreseg.driving.worker import Snapshot
from foreseg.engines.load import BackendChoice
from foreseg.errors import ConfigError
from foreseg.frames import CameraId
from foreseg.pipeline.degradation import Rung
from foreseg.pipeline.state import CameraState, State
from foreseg.texts import utf8_text
from foreseg_ros.guard import Guard

STALE_AFTER_S = 2.0  # a camera that sent nothing for so long is an error


def transport_problem(rmw: str, environment: Mapping[str, str], maps: str) -> str | None:
    """Why images above VGA may get lost between processes, or None if all is as it should be.

    Args:
        rmw: the middleware's name.
        environment: variables of this process.
        maps: its /proc/self/maps, once it has a ROS node.
    """
    if "fastrtps" not in rmw:
        return None
    named = fast_dds.profile_in_force(environment)
    if named is None:
        return (
            "no Fast DDS profile: its defaults lose most images above VGA; set"
            f" {fast_dds.PROFILE_VARIABLES[0]} to share/foreseg/launch/params/fastdds.xml in every"
            " process"
        )
    variable, path = named
    try:
        wanted = fast_dds.segment_bytes(path)
    except ConfigError as error:
        return f"{variable}: {error}; Fast DDS uses its defaults"
    if fast_dds.mapped_segment_bytes(maps) >= wanted:
        return None
    return (
        f"Fast DDS did not get its {wanted / 1e6:.0f} MB of shared memory, so most images above VGA"
        f" get lost: {fast_dds.SHARED_MEMORY} has {_room()}; in a container, docker run"
        " --shm-size=1g"
    )


def _room() -> str:
    try:
        return str(fast_dds.room())
    except OSError as error:
        return f"no room: {error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """Where the node is in its life."""

    state: str  # unconfigured, inactive or active
    failure: str  # of the last transition; empty if it went well


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the node knows beside its worker."""

    name: str  # full
    lifecycle: Lifecycle
    backend: BackendChoice  # what executes the engines
    topics: Mapping[CameraId, str]  # that cameras are read from; empty while it is inactive
    drops: Mapping[CameraId, str]  # cameras of which much is dropped, and why
    problems: Mapping[str, str | None]  # part -> what is wrong with it, None = nothing
    counts: Mapping[str, Mapping[str, str]]  # of such a part, where it has any
    guard: Guard  # what callbacks have raised


def diagnostics_from_snapshot(
    snapshot: Snapshot, facts: NodeFacts, *, header: Header, now_ns: int
) -> DiagnosticArray:
    """One message: a status for each camera, lifecycle, tracker, reasoner, machine, node, its parts.

    Args:
        snapshot: the worker's.
        facts: the node's.
        header: with the time of this message.
        now_ns: monotonic.
    """
    name, state = facts.name, snapshot.state
    statuses = [_camera(camera, facts, now_ns) for camera in state.cameras.values()]
    statuses += [
        _lifecycle(facts.lifecycle, name),
        _tracker(snapshot, name, facts.backend),
        _reasoner(snapshot, name),
        _machine(snapshot, name),
        _node(snapshot, facts.guard, name),
    ]
    statuses += _parts(facts.problems, facts.counts, name)
    return DiagnosticArray(header=header, status=statuses)


def diagnostics_before_configure(
    name: str, lifecycle: Lifecycle, problems: Mapping[str, str | None], *, header: Header
) -> DiagnosticArray:
    """What is known while there is no worker: the lifecycle, and what is wrong already.

    Args:
        name: of the node, full.
        lifecycle: that it has.
        problems: as of `NodeFacts`.
        header: with the time of this message.
    """
    statuses = [_lifecycle(lifecycle, name), *_parts(problems, {}, name)]
    return DiagnosticArray(header=header, status=statuses)


def _lifecycle(lifecycle: Lifecycle, name: str) -> DiagnosticStatus:
    level = DiagnosticStatus.OK if lifecycle.state == "active" else DiagnosticStatus.WARN
    message = lifecycle.state
    if lifecycle.failure:
        level, message = DiagnosticStatus.ERROR, f"{message}: {lifecycle.failure}"
    return _status(f"{name}: lifecycle", level, message, {})


def _parts(
    problems: Mapping[str, str | None], counts: Mapping[str, Mapping[str, str]], name: str
) -> list[DiagnosticStatus]:
    found = []
    for part, problem in problems.items():
        level = DiagnosticStatus.OK if problem is None else DiagnosticStatus.WARN
        message = problem or "as it should be"
        found.append(_status(f"{name}: {part}", level, message, counts.get(part, {})))
    return found


def _camera(camera: CameraState, facts: NodeFacts, now_ns: int) -> DiagnosticStatus:
    title = f"{facts.name}: camera {camera.camera}"
    values = {"topic": facts.topics.get(camera.camera, "")}
    values |= {f"dropped_{cause.value}": str(n) for cause, n in camera.dropped.items()}
    drops = facts.drops.get(camera.camera, "")
    reason = f": {drops}" if drops else ""
    if camera.newest is None:
        message = f"no frame has come yet{reason}"
        return _status(title, DiagnosticStatus.WARN, message, values)
    values |= {
        "rate_hz": f"{camera.rates.camera_hz:.1f}",
        "newest_index": str(camera.newest.index),
        "size": "{}x{}".format(*camera.newest.size_wh),
        "epoch": str(camera.newest.epoch),
        "tracks": str(len(camera.tracks)),
        "catching_up": str(len(camera.catch_ups)),
    }
    silent_s = (now_ns - camera.newest.received_ns) / 1e9
    if silent_s > STALE_AFTER_S:
        message = f"no frame for {silent_s:.1f} s{reason}"
        return _status(title, DiagnosticStatus.ERROR, message, values)
    if drops:
        return _status(title, DiagnosticStatus.WARN, drops, values)
    return _status(title, DiagnosticStatus.OK, "frames come in", values)


def _tracker(snapshot: Snapshot, name: str, backend: BackendChoice) -> DiagnosticStatus:
    state = snapshot.state
    failures = state.counters.get("tracker_failures", 0)
    message = "running" if state.enabled else "disabled by ~/enable"
    level = DiagnosticStatus.OK
    if snapshot.failure:
        level, message = DiagnosticStatus.ERROR, f"the loop failed: {snapshot.failure}"
    elif failures:
        level, message = DiagnosticStatus.WARN, f"{failures} tracker jobs failed"
    elif backend.reason:
        level, message = DiagnosticStatus.WARN, f"running on {backend}"
    latency = snapshot.received_to_published
    values = {
        "backend": backend.used.value,
        "mask_ms_p50": f"{latency.p50_ms:.2f}",
        "mask_ms_p99": f"{latency.p99_ms:.2f}",
        "hop_s": f"{state.hop_s:.3f}",
        "catch_up_s": f"{state.catch_up_s:.3f}",
        "messages_dropped": str(snapshot.num_messages_dropped),
        **{key: str(value) for key, value in sorted(state.counters.items())},
    }
    for camera in state.cameras.values():
        values[f"live_ms_{camera.camera}"] = f"{camera.live_step_ns / 1e6:.2f}"
    return _status(f"{name}: tracker", level, message, values)


def _reasoner(snapshot: Snapshot, name: str) -> DiagnosticStatus:
    state: State = snapshot.state
    values = {
        "pid": str(snapshot.reasoner_pid or ""),
        "answer_s_mean": f"{state.reasoner_s:.3f}",
        "queries": str(len(state.queries)),
        "is_asked": str(state.asking is not None),
    }
    if state.reasoner_up and state.reasoner_caution:
        message = f"up: {state.reasoner_caution}"
        return _status(f"{name}: reasoner", DiagnosticStatus.WARN, message, values)
    if state.reasoner_up:
        return _status(f"{name}: reasoner", DiagnosticStatus.OK, "up", values)
    message = f"down: {state.reasoner_reason}"
    return _status(f"{name}: reasoner", DiagnosticStatus.ERROR, message, values)


def _machine(snapshot: Snapshot, name: str) -> DiagnosticStatus:
    ladder = snapshot.state.ladder
    values = {"rung": str(int(ladder.rung)), "strain": ladder.strain.name.lower()}
    if ladder.rung is Rung.NORMAL:
        return _status(f"{name}: machine", DiagnosticStatus.OK, "nothing is given up", values)
    message = f"{ladder.rung.name.lower().replace('_', ' ')}: {ladder.reason}"
    return _status(f"{name}: machine", DiagnosticStatus.WARN, message, values)


def _node(snapshot: Snapshot, guard: Guard, name: str) -> DiagnosticStatus:
    """Threads, callbacks and the trace: whether all that should run does."""
    dead = [thread.name for thread in snapshot.threads if not thread.is_alive]
    failed = [thread for thread in snapshot.threads if thread.num_failures]
    complaints = [f"the {thread} thread is dead" for thread in dead]
    complaints += [f"the {t.name} thread failed {t.num_failures} times: {t.last}" for t in failed]
    if guard.num_failures:
        complaints.append(f"{guard.num_failures} callbacks failed, the last: {guard.last}")
    if snapshot.trace_gap:
        complaints.append(f"the trace has ended: {snapshot.trace_gap}")
    values = {
        "callback_failures": str(guard.num_failures),
        "last_failure": guard.last,
        "loop_failures": str(snapshot.num_failures),
        "dead_threads": ", ".join(dead),
        "trace_skipped": str(snapshot.trace_skipped),
    }
    level = DiagnosticStatus.WARN if complaints else DiagnosticStatus.OK
    if dead:
        level = DiagnosticStatus.ERROR
    message = "; ".join(complaints) or "threads, callbacks and trace are well"
    return _status(f"{name}: node", level, message, values)


def _status(name: str, level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        message=utf8_text(message),
        hardware_id="foreseg",
        values=[KeyValue(key=key, value=utf8_text(value)) for key, value in values.items()],
    )
