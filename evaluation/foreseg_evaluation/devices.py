# SPDX-License-Identifier: Apache-2.0
"""Latencies of devices: what a streaming score on hardware that is not at hand is made of.

Every number has its source; what is derived or estimated says so. But for `cpu-core`, whose numbers
were measured with foreseg itself, a score computed with them is a prediction, to be confirmed or
refuted on the device. Does not know: episodes, scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from foreseg.driving.player import Latencies
from foreseg.errors import ConfigError

_NS_PER_MS = 1_000_000
SAID_TOKENS = 175  # by a reasoner of these profiles: thoughts and an answer
ANSWER_TOKENS = 40  # of these, the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """One device with a reasoner and a tracker of a named size."""

    name: str
    about: str
    tracker_ms: float  # one step, one object, image encoding included
    tracker_source: str
    reasoner_ms: float  # from question to answer
    reasoner_source: str
    is_measured: bool = False  # with foreseg's own parts
    token_ms: float = 0.0  # of `reasoner_ms`, each of `SAID_TOKENS`; 0 = not known

    @property
    def latencies(self) -> Latencies:
        """For the simulated clock."""
        return Latencies(
            tracker_ns=round(self.tracker_ms * _NS_PER_MS),
            reasoner_ns=round(self.reasoner_ms * _NS_PER_MS),
        )

    def answer_ms(self, tokens: int, share_read: float = 1.0) -> float:
        """From question to answer, if it says so many tokens and reads this share of its prompt anew."""
        before_ms = self.reasoner_ms - SAID_TOKENS * self.token_ms
        return share_read * before_ms + tokens * self.token_ms

    @property
    def note(self) -> str:
        """What a prediction rests on, in words."""
        kind = "latencies measured on" if self.is_measured else "predicted, never run on"
        return (
            f"{kind} {self.about}: {self.tracker_ms:g} ms a tracker step"
            f" ({self.tracker_source}), {self.reasoner_ms:g} ms an answer ({self.reasoner_source})"
        )


_BUDGET = (
    "derived from TensorRT Edge-LLM's published rates for Qwen2.5-VL-7B: 6 frames of 560 px (2400"
    " visual and 150 text tokens in), 175 tokens out"
)
DEVICES: Mapping[str, DeviceProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            DeviceProfile(
                name="cpu-core",
                about="one core of an x86_64 server, the nano tracker and the kinematic reasoner",
                tracker_ms=16.2,
                tracker_source="benchmarks/tracker.py, one object, in version 0.1.0 before its"
                " memory was kept between calls (14.6 since); kept, so that scores compare",
                reasoner_ms=100.0,
                reasoner_source="kinematic, 320x240, as foreseg-eval measured it, rounded up",
                is_measured=True,
            ),
            DeviceProfile(
                name="orin",
                about="Jetson AGX Orin 64 GB",
                tracker_ms=80.0,
                tracker_source="SAM2 (size not stated) in TensorRT, 12.5 frames per second, as a"
                " user of Gy920's port reports (its issue 18)",
                reasoner_ms=5100.0,
                reasoner_source=f"{_BUDGET}; INT4 with EAGLE3",
                token_ms=1000 / 64.4,
            ),
            DeviceProfile(
                name="orin-answer-first",
                about="Jetson AGX Orin 64 GB, the answer before the rationale",
                tracker_ms=80.0,
                tracker_source="as orin",
                reasoner_ms=3000.0,
                reasoner_source=f"{_BUDGET[:-14]} 40 tokens out; INT4 with EAGLE3",
            ),
            DeviceProfile(
                name="thor",
                about="Jetson AGX Thor T5000",
                tracker_ms=67.0,
                tracker_source="Isaac ROS SAM2 graph, 720p in, 1024 px, one object: 14.9 frames"
                " per second (isaac_ros_benchmark results)",
                reasoner_ms=3900.0,
                reasoner_source=f"{_BUDGET}; NVFP4",
                token_ms=1000 / 49.5,
            ),
            DeviceProfile(
                name="thor-eagle3",
                about="Jetson AGX Thor T5000 with speculative decoding",
                tracker_ms=67.0,
                tracker_source="as thor",
                reasoner_ms=1300.0,
                reasoner_source=f"{_BUDGET}; NVFP4 with EAGLE3",
                token_ms=1000 / 188.4,
            ),
            DeviceProfile(
                name="a100",
                about="A100 80 GB",
                tracker_ms=11.0,
                tracker_source="SAM2.1 tiny, torch.compile: 91.2 frames per second (Meta's README)",
                reasoner_ms=2300.0,
                reasoner_source="estimated, nothing published: 7B in bf16 reads 15.2 GB a token at"
                " 2.0 TB/s, taken at 70 %: 11 ms x 175 tokens, and 39 TFLOP of prefill at half of"
                " 312 TFLOP/s",
                token_ms=11.0,
            ),
        )
    }
)


def device_profile(name: str) -> DeviceProfile:
    """Find a profile.

    Raises:
        ConfigError: for a name that has none.
    """
    if name not in DEVICES:
        msg = f"--device wants one of {', '.join(DEVICES)}; got {name!r}"
        raise ConfigError(msg)
    return DEVICES[name]
