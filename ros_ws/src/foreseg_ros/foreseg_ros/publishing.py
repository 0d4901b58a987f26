# SPDX-License-Identifier: Apache-2.0
"""The node's output side: masks, tracks, answers and the overlay, as messages.

`publish_masks` and `publish_answer` run on the worker's loop thread; the overlay is drawn later,
on an executor thread, from the newest masks only, and only while somebody looks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from foreseg_msgs import msg as messages
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import CompressedImage, Image

from foreseg.dialogue import Answer, QueryId
from foreseg.driving.executor import Executor, PublishedMasks
from foreseg.frames import CameraId, Frame
from foreseg.media.captions import (
    Banner,
    banner_from_answer,
    banner_while_asking,
    overlay_labels,
    with_others,
)
from foreseg.media.newest_answers import NewestAnswers
from foreseg.media.overlay import draw_overlay
from foreseg.pipeline.state import State
from foreseg_ros import qos
from foreseg_ros.conversions import (
    compressed_msg_from_rgb,
    header_from_stamp,
    image_msg_from_labels,
    image_msg_from_rgb,
)
from foreseg_ros.guard import Guard
from foreseg_ros.inputs import compressed_name
from foreseg_ros.parameters import NodeSettings
from foreseg_ros.records import answer_msg_from_answer, track_array_msg_from_tracks
from foreseg_ros.topics import Topics
from foreseg_ros.vision_output import vision_output


class BesideMasks(Protocol):
    """What else is published with a frame's masks."""

    def publish(self, masks: PublishedMasks) -> None:
        """On the worker's loop thread."""


class RosOutput:
    """Publishes through lifecycle publishers: what is sent while inactive is dropped by them."""

    def __init__(
        self,
        node: LifecycleNode,
        topics: Topics,
        settings: NodeSettings,
        executor: Executor,
        guard: Guard,
        beside: Sequence[BesideMasks],
    ) -> None:
        """Make the publishers among `topics`.

        Args:
            node: that publishes.
            topics: where its publishers are made.
            settings: of the node.
            executor: has the frames that answers are about.
            guard: notes what drawing raises.
            beside: get the masks, too.

        Raises:
            ConfigError: a QoS override that cannot be.
        """
        self._guard = guard
        self._beside = beside
        self._settings = settings
        self._executor = executor
        self._lock = threading.Lock()
        self._shown: dict[CameraId, PublishedMasks] = {}
        self._newest = NewestAnswers()
        self._rationale_wanted: frozenset[QueryId] = frozenset()
        make = topics.publisher
        self._answers = make(messages.Answer, "~/answers", qos.answers())
        self._vision = vision_output(node, topics, settings)
        self._masks: dict[CameraId, LifecyclePublisher] = {}
        self._tracks: dict[CameraId, LifecyclePublisher] = {}
        self._overlay: dict[CameraId, LifecyclePublisher] = {}
        self._compressed: dict[CameraId, LifecyclePublisher] = {}
        for camera in settings.cameras:
            prefix = settings.output_prefix(camera)
            self._masks[camera] = make(Image, f"{prefix}/masks", qos.masks())
            self._tracks[camera] = make(messages.TrackArray, f"{prefix}/tracks", qos.masks())
            self._overlay[camera] = make(Image, f"{prefix}/overlay", qos.overlay())
            self._compressed[camera] = make(
                CompressedImage, compressed_name(node, f"{prefix}/overlay"), qos.overlay()
            )

    def publish_masks(self, masks: PublishedMasks) -> None:
        """Label map and tracks, with the source frame's header."""
        camera = masks.frame.camera
        header = header_from_stamp(masks.frame.stamp_ns, masks.frame.frame_id)
        self._masks[camera].publish(image_msg_from_labels(masks.label_map, header))
        self._tracks[camera].publish(
            track_array_msg_from_tracks(
                masks.frame, masks.tracks, with_masks=self._settings.track_masks
            )
        )
        for output in self._beside:
            output.publish(masks)
        if self._vision is not None:
            self._vision.publish(masks)
        if masks.image is not None and self._is_watched(camera):
            kept = PublishedMasks(
                frame=masks.frame,
                image=np.array(masks.image),
                label_map=masks.label_map,
                tracks=masks.tracks,
            )
            with self._lock:
                self._shown[camera] = kept

    def publish_answer(self, answer: Answer) -> None:
        """An answer, with its keyframe's header; not once more for the masks of its window."""
        if answer.observed:
            return  # only the action hands them on
        self._newest.take(answer, self._keyframe_of(answer))
        if self._vision is not None:
            self._vision.take_answer(answer)
        self._answers.publish(answer_msg_from_answer(answer))

    def publish_overlays(self, state: State) -> None:
        """Draw and publish what was shown since the last call; `state` is the pipeline's."""
        self._note_wishes(state)
        with self._lock:
            shown, self._shown = self._shown, {}
        if not shown:
            return
        for camera, masks in shown.items():
            try:
                self._publish_overlay(camera, masks, state)
            except Exception as error:  # noqa: BLE001 (the other cameras' come nevertheless)
                self._guard.note(f"the overlay of camera {camera}", error)

    def _publish_overlay(self, camera: CameraId, masks: PublishedMasks, state: State) -> None:
        if masks.image is None:
            return
        labels = overlay_labels(masks.tracks)
        picture = draw_overlay(
            masks.image,
            masks.label_map,
            labels,
            self._banner(masks, state),
            self._newest.inset(masks.frame, labels),
        )
        header = header_from_stamp(masks.frame.stamp_ns, masks.frame.frame_id)
        if self._overlay[camera].get_subscription_count():
            self._overlay[camera].publish(image_msg_from_rgb(picture, header))
        if self._compressed[camera].get_subscription_count():
            self._compressed[camera].publish(compressed_msg_from_rgb(picture, header))

    def _keyframe_of(self, answer: Answer) -> Frame | None:
        """A copy of it for the overlay, if somebody looks; it is held until this call ends."""
        if answer.keyframe_index is None or not self._is_watched(answer.camera):
            return None
        frame = self._executor.histories[answer.camera].get(answer.keyframe_index)
        return None if frame is None else replace(frame, image=frame.image.copy())

    def _note_wishes(self, state: State) -> None:
        """Which queries want their rationale: standing ones, and those of the last answers."""
        wanted = {entry.query.id for entry in state.queries if entry.query.want_rationale}
        newest = (self._newest.of(camera) for camera in self._settings.cameras)
        answered = {answer.query_id for answer in newest if answer is not None}
        self._rationale_wanted = (self._rationale_wanted & answered) | wanted

    def _banner(self, masks: PublishedMasks, state: State) -> Banner | None:
        frame, asking = masks.frame, state.asking
        answer = self._newest.of(frame.camera)
        banner = None
        if answer is not None:
            banner = banner_from_answer(answer, frame.stamp_ns)
            if answer.query_id not in self._rationale_wanted:
                banner = replace(banner, rationale="")
        if asking is not None and asking.query.camera == frame.camera:
            banner = banner_while_asking(asking, banner)
        if banner is None:
            return None
        ids = {entry.query.id for entry in state.queries}
        ids.update(query_id for track in masks.tracks for query_id in track.query_ids)
        return with_others(banner, self._newest.of_queries(frame.camera, ids))

    def _is_watched(self, camera: CameraId) -> bool:
        publishers = (self._overlay[camera], self._compressed[camera])
        return any(publisher.get_subscription_count() for publisher in publishers)
