# SPDX-License-Identifier: Apache-2.0
"""Start the foreseg lifecycle node; by default it configures and activates itself.

    ros2 launch foreseg foreseg.launch.py image:=/camera/color/image_raw
    ros2 launch foreseg foreseg.launch.py image:="front=/front/image_raw left=/left/image_raw"

The node is a plain process to launch: when it ends, so does the launch, unless others run in it.
The Fast DDS profile that brings large images through shared memory is set for the node unless the
environment already names one. The camera driver, started elsewhere, needs the same variable.
"""

import re
from difflib import get_close_matches
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.logging import get_logger
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

PARAMS = Path(__file__).resolve().parent / "params"
# Fast DDS 2 (Humble, Jazzy) reads the first, Fast DDS 3 (Kilted and later) the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
ARGUMENTS = {
    "params_file": (str(PARAMS / "foreseg.yaml"), "parameters of the node"),
    "image": (
        "image",
        "topic with the camera's images; several cameras: NAME=TOPIC of each, parted by spaces",
    ),
    "camera_info": (
        "",
        "topic with its calibration, or NAME=TOPIC of each; empty: beside the images",
    ),
    "depth": (
        "",
        "topic with depth images of the same pixels, or NAME=TOPIC of each; then ~/points is there",
    ),
    "name": ("foreseg", "name of the node"),
    "namespace": ("", "namespace of the node"),
    "autostart": ("true", "configure and activate the node as soon as it runs: true or false"),
    "compressed": ("", "read compressed images: true or false; empty: as params_file has it"),
    "use_sim_time": ("", "take the time from /clock: true or false; empty: likewise"),
    "respawn": ("false", "start the node anew when it ends: true or false"),
    "respawn_delay": ("2.0", "seconds before that"),
    "log_level": ("info", "debug, info, warn or error"),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=about)
                for name, (default, about) in ARGUMENTS.items()
            ),
            *(
                SetEnvironmentVariable(
                    name,
                    EnvironmentVariable(name, default_value=str(PARAMS / "fastdds.xml")),
                )
                for name in PROFILE_VARIABLES
            ),
            OpaqueFunction(function=_start),
        ]
    )


def _start(context: LaunchContext) -> list[Node]:
    """The node, with the arguments as they were given.

    Raises:
        ValueError: an argument that cannot be meant so.
    """
    for name in set(context.launch_configurations) - set(ARGUMENTS):
        for known in get_close_matches(name, ARGUMENTS, n=1, cutoff=0.75):
            text = f"launch argument {name!r} is not one of this launch file; is {known!r} meant?"
            get_logger("foreseg").warning(text)
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    params_file = Path(value["params_file"]).expanduser()  # no shell has opened a ~ behind :=
    if not params_file.is_file():
        msg = f"params_file wants a file with parameters, got {value['params_file']!r}"
        raise ValueError(msg)
    cameras = _topics("image", value["image"])
    prefixes = {name: f"{name}/" if len(cameras) > 1 else "" for name in cameras}
    remappings = [(f"{prefixes[name]}image", topic) for name, topic in cameras.items()]
    for name in ("camera_info", "depth"):
        remappings += _remappings_beside(name, value[name], prefixes)
    parameters = {"autostart": _flag("autostart", value["autostart"])}
    for name in ("compressed", "use_sim_time"):
        if value[name]:
            parameters[name] = _flag(name, value[name])
    if value["depth"]:
        parameters["depth"] = True
    if "" not in cameras:
        parameters["cameras"] = list(cameras)
    return [
        Node(
            package="foreseg",
            executable="foreseg_node",
            name=value["name"],
            namespace=value["namespace"],
            parameters=[str(params_file), parameters],
            remappings=remappings,
            respawn=_flag("respawn", value["respawn"]),
            respawn_delay=_seconds("respawn_delay", value["respawn_delay"]),
            arguments=["--ros-args", "--log-level", value["log_level"]],
            output="screen",
            emulate_tty=True,
        )
    ]


def _topics(argument: str, text: str) -> dict[str, str]:
    """Camera -> topic; the camera is "" where a topic stands alone.

    Raises:
        ValueError: neither a topic nor NAME=TOPIC, different names, parted by spaces.
    """
    pairs = [word.rpartition("=")[::2] for word in text.split()]
    names = [name for name, _ in pairs]
    is_named = all(names) or len(pairs) == 1
    if (
        not pairs
        or not all(_is_topic(topic) for _, topic in pairs)
        or not all(name.isascii() and name.isidentifier() for name in names if name)
        or len(set(names)) < len(names)
        or not is_named
    ):
        msg = f"{argument} wants a topic, or NAME=TOPIC of each camera parted by spaces, got {text!r}"
        raise ValueError(msg)
    return dict(pairs)


def _is_topic(text: str) -> bool:
    """True for what may be a topic; `depth:=true` is meant otherwise."""
    return re.fullmatch(r"[\w/~{}]+", text) is not None and text.lower() not in {"true", "false"}


def _remappings_beside(argument: str, text: str, prefixes: dict[str, str]) -> list[tuple]:
    """Of a second topic of the cameras; none where none is given.

    Raises:
        ValueError: as `_topics`, or of a camera that `image` does not name.
    """
    topics = _topics(argument, text) if text else {}
    if len(prefixes) == 1 and len(topics) == 1:  # one camera: its name may be left out in either
        return [(argument, *topics.values())]
    if set(topics) - set(prefixes):
        msg = f"{argument} wants cameras that image names ({' '.join(prefixes)}), got {text!r}"
        raise ValueError(msg)
    return [(f"{prefixes[name]}{argument}", topic) for name, topic in topics.items()]


def _flag(argument: str, text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        msg = f"{argument} wants true or false, got {text!r}"
        raise ValueError(msg)
    return text.lower() == "true"


def _seconds(argument: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        msg = f"{argument} wants seconds, got {text!r}"
        raise ValueError(msg)
    return seconds
