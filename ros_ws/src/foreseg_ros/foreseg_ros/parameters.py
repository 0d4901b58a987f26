# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: every setting of the core under its dotted name, and a few of ROS's own.

Descriptors carry text and range. A change is checked before it is taken, and takes effect at the
next configure; while the node is configured it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Final

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from foreseg.config import Config, Scalar, config_from_settings, settings_of
from foreseg.errors import ConfigError
from foreseg.frames import DEFAULT_CAMERA, CameraId

RCL_PREFIXES: Final = ("use_sim_time", "qos_overrides.", "start_type_description_service")
Type: Final = Parameter.Type
CORES: Final = ".cores"  # how settings end that are texts of cores
KINDS: Final = {
    Type.BOOL: "true or false",
    Type.INTEGER: "a whole number",
    Type.DOUBLE: "a number",
    Type.STRING: "a text",
    Type.STRING_ARRAY: "a list of texts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnParameter:
    """A parameter that only the node has."""

    name: str
    default: Scalar | list[str]
    about: str
    low: float | None = None
    high: float | None = None


OWN_PARAMETERS = (
    OwnParameter(
        name="cameras",
        default=[str(DEFAULT_CAMERA)],
        about="camera names; one reads the topic `image`, several read `NAME/image`",
    ),
    OwnParameter(
        name="compressed",
        default=False,
        about="read sensor_msgs/CompressedImage from the topic `.../compressed` instead",
    ),
    OwnParameter(
        name="max_image_pixels",
        default=4096 * 3072,
        about="a larger image is dropped as malformed",
        low=1,
        high=1e9,
    ),
    OwnParameter(
        name="track_masks",
        default=False,
        about="put each track's run-length mask into ~/tracks",
    ),
    OwnParameter(
        name="detections",
        default=True,
        about="publish ~/detections and ~/label_info, where the package vision_msgs is installed",
    ),
    OwnParameter(
        name="query_masks",
        default=False,
        about="publish a mask for each query on ~/queries/ID/mask",
    ),
    OwnParameter(
        name="camera_info",
        default=True,
        about="read `camera_info` beside the images, and publish it with the masks' headers",
    ),
    OwnParameter(
        name="depth",
        default=False,
        about="read depth images from `depth`, and publish where each track is on ~/points",
    ),
    OwnParameter(
        name="depth_queue",
        default=30,
        about="depth images of a camera that are kept for masks to come",
        low=1,
        high=1000,
    ),
    OwnParameter(
        name="depth_tolerance_s",
        default=0.01,
        about="so far apart may the stamps of a depth image and of masks be",
        low=0,
        high=1,
    ),
    OwnParameter(
        name="overlay_hz",
        default=10.0,
        about="rate of ~/overlay at most, and only while somebody subscribes",
        low=0.1,
        high=60.0,
    ),
    OwnParameter(name="trace_path", default="", about="write a trace to this file; empty = none"),
    OwnParameter(
        name="trace_max_bytes",
        default=1_000_000_000,
        about="the trace ends at this size",
        low=10_000,
        high=1e13,
    ),
    OwnParameter(
        name="autostart",
        default=False,
        about="configure and activate at start, where no lifecycle manager does",
    ),
    OwnParameter(
        name="bond",
        default=False,
        about="have a bond with a lifecycle manager that wants one; needs the package bond",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """The node's own parameters, read once at configure."""

    cameras: tuple[CameraId, ...]
    compressed: bool
    max_image_pixels: int
    track_masks: bool
    detections: bool
    query_masks: bool
    camera_info: bool
    depth: bool
    depth_queue: int
    depth_tolerance_s: float
    overlay_hz: float
    trace_path: str
    trace_max_bytes: int
    bond: bool

    @property
    def reads_camera_info(self) -> bool:
        """True if somebody needs the cameras' calibration."""
        return self.camera_info or self.depth

    def input_prefix(self, camera: CameraId) -> str:
        """What the names of a camera's inputs begin with."""
        return "" if len(self.cameras) == 1 else f"{camera}/"

    def output_prefix(self, camera: CameraId) -> str:
        """What the names of a camera's outputs begin with."""
        return "~" if len(self.cameras) == 1 else f"~/{camera}"


def declare_parameters(node: Node) -> None:
    """Declare all parameters with descriptors, and warn of values for names that there are not.

    Raises:
        ConfigError: a value of the wrong type or out of range, with its name.
    """
    for own in OWN_PARAMETERS:
        descriptor = _descriptor(own.about, own.default, own.low, own.high)
        _declare(node, own.name, own.default, descriptor)
    for name, default, item in settings_of(Config()):
        meta = item.metadata
        descriptor = _descriptor(meta["about"], default, meta["low"], meta["high"])
        _declare(node, name, default, descriptor)
    text = unknown_text(
        [name for name in given_parameters(node) if not node.has_parameter(name)], known_names()
    )
    if text is not None:
        node.get_logger().warning(text)


def given_parameters(node: Node) -> dict[str, Parameter]:
    """What files and command line set; rclpy has no public name for those not declared."""
    return dict(node._parameter_overrides)  # noqa: SLF001


def known_names() -> list[str]:
    """Every parameter that the node declares."""
    return [own.name for own in OWN_PARAMETERS] + [name for name, _, _ in settings_of(Config())]


def unknown_text(names: Sequence[str], known: Sequence[str]) -> str | None:
    """What to say of values for parameters that the node has not; None if there is nothing.

    They are no error: a file's section `/**` may serve other nodes, too.
    """
    told = with_nearest([name for name in names if not name.startswith(RCL_PREFIXES)], known)
    return f"without effect, no such parameter: {told}" if told else None


def is_installed(package: str) -> bool:
    """Whether a Python package is there; a mere folder of its name, as of its sources, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def with_nearest(names: Sequence[str], known: Sequence[str]) -> str:
    """Names in order, each with the nearest known one where there is one."""
    told = []
    for name in sorted(names):
        near = get_close_matches(name, known, n=1)
        told.append(f"{name} (is {near[0]} meant?)" if near else name)
    return ", ".join(told)


def config_from_node(node: Node) -> Config:
    """The core's settings as the parameters have them now.

    Raises:
        ConfigError: with the name and the received value.
    """
    names = [name for name, _, _ in settings_of(Config())]
    return config_from_settings({name: node.get_parameter(name).value for name in names})


def settings_from_node(node: Node) -> NodeSettings:
    """The node's own parameters.

    Raises:
        ConfigError: no camera, a repeated or an unusable name; a package that is missing.
    """
    value = {own.name: node.get_parameter(own.name).value for own in OWN_PARAMETERS}
    cameras = tuple(CameraId(name) for name in value["cameras"])
    if not cameras or len(set(cameras)) != len(cameras) or not all(map(_is_topic_part, cameras)):
        msg = (
            "parameter cameras wants different names of letters, digits and '_',"
            f" got {list(cameras)}"
        )
        raise ConfigError(msg)
    if value["bond"] and not is_installed("bond"):
        msg = (
            "parameter bond wants the package bond, which is not installed: sudo apt install"
            " ros-$ROS_DISTRO-bond, or bond_timeout: 0.0 for the lifecycle manager"
        )
        raise ConfigError(msg)
    return NodeSettings(
        cameras=cameras,
        compressed=value["compressed"],
        max_image_pixels=value["max_image_pixels"],
        track_masks=value["track_masks"],
        detections=value["detections"],
        query_masks=value["query_masks"],
        camera_info=value["camera_info"],
        depth=value["depth"],
        depth_queue=value["depth_queue"],
        depth_tolerance_s=value["depth_tolerance_s"],
        overlay_hz=value["overlay_hz"],
        trace_path=value["trace_path"],
        trace_max_bytes=value["trace_max_bytes"],
        bond=value["bond"],
    )


def check_change(parameters: Sequence[Parameter], *, is_configured: bool) -> SetParametersResult:
    """Whether a change may be made; the reason carries the received value."""
    core = {name for name, _, _ in settings_of(Config())}
    known = set(known_names())
    for parameter in parameters:
        if parameter.name not in known:
            continue  # use_sim_time and the like
        if is_configured:
            reason = (
                f"{parameter.name} = {parameter.value!r} is refused while the node is configured:"
                " deactivate, clean up, set it, configure again"
            )
            return SetParametersResult(successful=False, reason=reason)
        if parameter.name in core:
            try:
                config_from_settings({parameter.name: parameter.value})
            except ConfigError as error:
                return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _declare(
    node: Node, name: str, default: Scalar | list[str], descriptor: ParameterDescriptor
) -> None:
    """Declare one with the value that it was given, or its default.

    Raises:
        ConfigError: its value is of another type or out of range.
    """
    given = given_parameters(node).get(name)
    value = default if given is None else _value_of(given, default)
    try:
        node.declare_parameter(name, value, descriptor, ignore_override=True)
    except InvalidParameterValueException as error:
        raise ConfigError(str(error)) from error


def _value_of(given: Parameter, default: Scalar | list[str]) -> Scalar | list[str]:
    """The value; `5` is taken where a float or a core is wanted, and `1e9` where a whole number is."""
    value, wanted = given.value, Type.from_parameter_value(default)
    if given.type_ is Type.INTEGER and wanted is Type.DOUBLE:
        return float(value)
    if given.type_ is Type.INTEGER and given.name.endswith(CORES):
        return str(value)  # a text, such as 0-2; of 0 ROS makes a number
    if given.type_ is Type.DOUBLE and wanted is Type.INTEGER and value.is_integer():
        return int(value)
    if given.type_ is not wanted:
        got = "nothing" if value is None else repr(value)
        msg = f"parameter {given.name} wants {KINDS[wanted]}, got {got}"
        raise ConfigError(msg)
    same: Scalar | list[str] = value
    return same


def _is_topic_part(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def _descriptor(
    about: str, default: Scalar | list[str], low: float | None, high: float | None
) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=about)
    if low is None or high is None or isinstance(default, bool):
        return descriptor
    if isinstance(default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
    elif isinstance(default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
        ]
    return descriptor
