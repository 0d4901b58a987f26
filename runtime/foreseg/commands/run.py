# SPDX-License-Identifier: Apache-2.0
"""`foreseg run SOURCE`: the whole job without ROS, on a file or a camera of this machine.

A file is played on a simulated clock at its own rate: the tracker keeps up and no frame is
dropped, while the reasoner takes as long as it really does. With `--live` the tracker, too, takes
as long as it really does, and frames are dropped as they would be on a robot.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from foreseg.commands.default_reasoner import HELP, default_kind
from foreseg.errors import InputError

if TYPE_CHECKING:
    from foreseg.commands.options import RunOptions
    from foreseg.commands.run_files import RunFiles
    from foreseg.commands.run_report import RunReport
    from foreseg.media.sources import Source

INTERRUPTED = 130
MAX_CAMERA_VIDEO_HZ = 60.0


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "run",
        help="answer queries on a video, a folder of images, an image or a camera",
        description="Answers queries about a video or camera with masks, and tracks them.",
    )
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="video, image, folder of images, bag, or a camera such as 0",
    )
    add(
        "--query", action="append", default=[], metavar="TEXT", help="what to ask; may be repeated"
    )
    _add_prompts(parser)
    add(
        "--period", type=float, default=0.0, metavar="S", help="ask again every S seconds; 0: once"
    )
    add("--bundle", default="nano", help="engine bundle: a folder, or `nano`")
    add("--reasoner", default=default_kind(), metavar="KIND", help=HELP)
    add("--out", default="foreseg_out", metavar="DIR", help="where the files go")
    add("--rationale", action="store_true", help="ask for the chain of thought, and show it")
    add("--filmstrips", metavar="DIR", help="a picture of each answer into this folder")
    add(
        "--observed-masks",
        metavar="DIR",
        help="segment the window of each answer, too; its masks go into this folder",
    )
    add(
        "--horizon",
        type=float,
        default=0.0,
        metavar="S",
        help="how far ahead the queries look: after S seconds it is judged whether an answer came"
        " true, as far as masks can tell",
    )
    add("--no-video", action="store_true", help="no overlay.mp4")
    add("--max-frames", type=int, metavar="N", help="stop after N frames")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter such as tracker.threads=2; may be repeated",
    )
    add(
        "--live",
        action="store_true",
        help="let a file's frames be dropped while the tracker works",
    )
    parser.set_defaults(handler=run)


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    """Declare what points at objects."""
    add = parser.add_argument
    add(
        "--box",
        action="append",
        default=[],
        metavar="x0,y0,x1,y1@frame[:name]",
        help="an object to track, in pixels of a frame counted from 0; may be repeated",
    )
    add(
        "--point",
        action="append",
        default=[],
        metavar="x,y@frame[:name]",
        help="a point on an object; with the name and frame of a box it is added to that box",
    )
    add(
        "--not-point",
        action="append",
        default=[],
        metavar="x,y@frame:name",
        help="a point beside the object of that name, which is not part of it",
    )
    add(
        "--mask",
        action="append",
        default=[],
        metavar="FILE@frame[:name]",
        help="a picture of the frame's size: black, and one colour for each object",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run, write the files, and say what was found."""
    from foreseg.commands.options import options_from_arguments
    from foreseg.media.sources import open_source

    options = options_from_arguments(arguments)
    with open_source(options.source) as source:
        return run_source(options, source)


def run_source(options: RunOptions, source: Source) -> int:
    """Play a source that is open, write the files, and say what was found; the exit code.

    Raises:
        ForesegError: an operator's mistake.
    """
    from foreseg.commands.camera_run import play_camera
    from foreseg.commands.file_run import play_file
    from foreseg.commands.run_files import RunFiles
    from foreseg.media.sources import DEFAULT_RATE_HZ, CameraSource

    _check_prompts(options, source)
    is_camera = isinstance(source, CameraSource)
    is_still = not is_camera and source.num_frames == 1
    rate_hz = source.rate_hz or DEFAULT_RATE_HZ
    if is_camera:  # what a driver says is not measured
        rate_hz = min(rate_hz, MAX_CAMERA_VIDEO_HZ)
    files = RunFiles(
        options.out,
        {query.id: query.text for query in options.queries},
        video_hz=None if is_still or not options.has_video else rate_hz,
        has_rationale=options.has_rationale,
        filmstrips=options.filmstrips,
        observed=options.observed,
        counted=[one.object_id for one in options.prompts],
    )
    try:
        try:
            play = play_camera if is_camera else play_file
            report = play(options, source, files)
        finally:
            files.close()
        files.write_summary(_summary(options, files, report))
    except OSError as error:
        place = error.filename or options.out
        msg = f"cannot write {place}: {error.strerror or error}; make room, or give another --out"
        raise InputError(msg) from error
    _print_summary(options, files, report)
    return INTERRUPTED if report.is_interrupted and not is_camera else 0


def _check_prompts(options: RunOptions, source: Source) -> None:
    """A prompt beyond the end is a mistake that can be named before anything runs."""
    last = max((one.frame for one in options.prompts), default=0)
    num_frames = source.num_frames
    if num_frames is not None and last >= num_frames:  # a header's estimate: look
        num_frames = source.counted_frames()
    limit = options.max_frames
    is_limited = limit is not None and (num_frames is None or limit < num_frames)
    end = limit if is_limited else num_frames
    for one in options.prompts:
        if end is not None and one.frame >= end:
            why = f"--max-frames {limit} ends the run" if is_limited else f"{source.name} ends"
            msg = f"{one.words} is on frame {one.frame}, but {why} at frame {end - 1}"
            raise InputError(msg)


def _summary(options: RunOptions, files: RunFiles, report: RunReport) -> dict[str, object]:
    from foreseg.commands.run_files import answer_record

    return {
        "source": options.source,
        "frames_in": report.num_frames,
        "masks_out": files.num_masks,
        "frames_with_objects": files.num_visible,
        "wall_s": round(report.elapsed_s, 3),
        "drops": _drops(report),
        "answers": [answer_record(answer) for answer in files.answers],
        "objects": _fates(files, report),
        "unanswered": report.unanswered,
        "unreadable": {"frames": report.gaps.num_frames, "reasons": report.gaps.reasons},
        "interrupted": report.is_interrupted,
        "counters": dict(sorted(report.counters.items())),
    }


def _drops(report: RunReport) -> dict[str, int]:
    """Frames without masks of their own, by cause."""
    return {
        name.removeprefix("dropped_"): count
        for name, count in sorted(report.counters.items())
        if name.startswith("dropped_")
    }


def _fates(files: RunFiles, report: RunReport) -> dict[str, str]:
    """What became of every object pointed at, in words."""
    from foreseg.commands.run_report import fate_of

    return {
        i: fate_of(reply, files.num_shown[i], report.end) for i, reply in report.objects.items()
    }


def _print_summary(options: RunOptions, files: RunFiles, report: RunReport) -> None:
    from foreseg.commands.run_report import describe_answer

    lines = []
    for i, answer in enumerate(files.answers):
        first_ns = files.first_masks_ns.get(i)
        lines += describe_answer(
            answer, first_ns, end=report.end, has_rationale=options.has_rationale
        )
    lines += [f"object {i!r}: {text}" for i, text in _fates(files, report).items()]
    lines += [f"{query!r}: not answered, {why}" for query, why in report.unanswered.items()]
    for line in lines:
        print(line)
    rate = report.num_frames / report.elapsed_s if report.elapsed_s > 0 else 0.0
    print(
        f"{report.num_frames} frame{'' if report.num_frames == 1 else 's'}"
        f" in {report.elapsed_s:.1f} s ({rate:.1f}/s),"
        f" {files.num_visible} with masks"
    )
    if report.gaps.num_frames:
        print(f"not readable: {report.gaps.num_frames} frames of {options.source}")
    drops = _drops(report)
    if drops:
        print("dropped: " + ", ".join(f"{count} {cause}" for cause, count in drops.items()))
    written = sorted(path.name for path in files.out.iterdir())
    print(f"wrote {files.out}: {', '.join(written)}")
    if options.filmstrips is not None:
        print(f"wrote {options.filmstrips}: a picture of each answer")
    if options.observed is not None:
        print(f"wrote {options.observed}: masks of {files.num_observed} window(s)")
    sys.stdout.flush()
