# SPDX-License-Identifier: Apache-2.0
"""Frames on their way from the worker to the reasoner's process: how large they come."""

from __future__ import annotations

from tests.support.colour_tracker import ColourTracker
from tests.support.scene import WAIT_S, Recorder, image_of

from foreseg.config import Config, ReasonerConfig, SchedulerConfig
from foreseg.dialogue import Query, QueryId
from foreseg.driving.executor import Executor
from foreseg.driving.worker import Worker
from foreseg.frames import DEFAULT_CAMERA
from foreseg.pipeline.events import Reply
from foreseg.pipeline.tracks import NS


def test_frames_to_decode_come_larger_than_those_to_look_at() -> None:
    reasoner = ReasonerConfig(kind="tests.support.reasoners:sharp", nice=0, timeout_s=5.0)
    config = Config(reasoner=reasoner, scheduler=SchedulerConfig(warm_up_s=0.1))
    output, cameras, replies = Recorder(), (DEFAULT_CAMERA,), list[Reply]()

    def take(reply: Reply) -> None:
        replies.append(reply)
        output.notify()

    executor = Executor(config, cameras, ColourTracker)
    worker = Worker(config, cameras, executor, output)
    worker.start()
    try:
        query = Query(id=QueryId("q"), text="which?")
        worker.requests.ask(query, take, wants_answer=True, timeout_s=WAIT_S)
        for number in range(2):  # the second ends the warm-up
            worker.submit_frame(DEFAULT_CAMERA, image_of(number, (800, 600)), number * NS)
        output.wait_for(lambda: replies, "an answer")
    finally:
        worker.stop()
    (answer,) = (reply.answer for reply in replies)
    assert answer is not None
    assert answer.reason == "(336, 448, 3) and (480, 640, 3) of (800, 600)"
