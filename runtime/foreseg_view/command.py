# SPDX-License-Identifier: Apache-2.0
"""`foreseg view SOURCE`: a camera or a video in a browser, with all that one can ask of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path

from foreseg.commands.default_reasoner import HELP, default_kind

DEFAULT_PORT = 8600
MAX_TRACE_BYTES = 100_000_000  # of the one that a recording has; it ends then, and says so


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "view",
        help="see a camera or video in a browser, ask, and point at things",
        description="Serves a page with the live picture and its masks: ask in words, point, watch.",
    )
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="a camera such as 0, a video, an image or a folder of them",
    )
    add("--bundle", default="nano", help="engine bundle: a folder, or `nano`")
    add("--reasoner", default=default_kind(), metavar="KIND", help=HELP)
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter such as tracker.threads=2; may be repeated",
    )
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to serve; any address but this machine's own asks viewers for a token",
    )
    add("--port", type=int, default=DEFAULT_PORT, metavar="N", help="0: any that is free")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C.

    Raises:
        ForesegError: an operator's mistake.
    """
    from foreseg.commands.options import config_from_words
    from foreseg.commands.questions import Questions, RunTrace
    from foreseg.commands.run_report import load_tracker
    from foreseg.driving.executor import Executor
    from foreseg.driving.worker import Worker
    from foreseg.frames import DEFAULT_CAMERA
    from foreseg.media.sources import CameraSource, open_source
    from foreseg_view.board import Board
    from foreseg_view.feed import Feed
    from foreseg_view.pixels import reduced
    from foreseg_view.server import ViewServer
    from foreseg_view.worker_host import BoardOutput, WorkerHost

    words = [f"tracker.bundle={arguments.bundle}", f"reasoner.kind={arguments.reasoner}"]
    config = config_from_words([*words, *arguments.set])
    with open_source(arguments.source) as source, tempfile.TemporaryDirectory() as scratch:
        board, trace_path = Board(), Path(scratch) / "trace.jsonl"
        executor = Executor(config, (DEFAULT_CAMERA,), load_tracker(config))
        questions = Questions(executor, reduced)
        trace = RunTrace(questions, trace_path, config, DEFAULT_CAMERA, max_bytes=MAX_TRACE_BYTES)
        output = BoardOutput(board, questions)
        worker = Worker(config, (DEFAULT_CAMERA,), executor, output, trace=trace)
        is_live, name = isinstance(source, CameraSource), Path(source.name).name
        host = WorkerHost(worker, name, trace_path=trace_path, is_live=is_live)
        server = ViewServer(board, host, address=arguments.host, port=arguments.port)
        stopping = threading.Event()
        feed = Feed(source, worker, host.tell, stopping)
        worker.start()
        server.start()
        sys.stdout.write(f"open {server.url} (Ctrl-C ends)\n")
        sys.stdout.flush()
        try:
            feed.run()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
        finally:
            stopping.set()
            server.stop()
            worker.stop()
    return 0
