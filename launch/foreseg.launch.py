# SPDX-License-Identifier: Apache-2.0
"""Start the foreseg lifecycle node, and by default configure and activate it.

    ros2 launch foreseg foreseg.launch.py image:=/camera/color/image_raw

The Fast DDS profile that brings large images through shared memory is set for the node unless the
environment already names one. The camera driver, started elsewhere, needs the same variable.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

PARAMS = Path(__file__).resolve().parent / "params"
# Fast DDS 2 (Humble, Jazzy) reads the first, Fast DDS 3 (Kilted and later) the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
ARGUMENTS = {
    "params_file": (str(PARAMS / "foreseg.yaml"), "parameters of the node"),
    "image": ("image", "topic with the camera's images"),
    "name": ("foreseg", "name of the node"),
    "namespace": ("", "namespace of the node"),
    "autostart": ("true", "configure and activate the node as soon as it runs"),
    "log_level": ("info", "debug, info, warn or error"),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    value = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    node = LifecycleNode(
        package="foreseg",
        executable="foreseg_node",
        name=value["name"],
        namespace=value["namespace"],
        parameters=[value["params_file"]],
        remappings=[("image", value["image"])],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        output="screen",
        emulate_tty=True,
    )
    activate_when_configured = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[_change(node, Transition.TRANSITION_ACTIVATE)],
        ),
        condition=IfCondition(value["autostart"]),
    )
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
            activate_when_configured,
            node,
            _change(
                node,
                Transition.TRANSITION_CONFIGURE,
                condition=IfCondition(value["autostart"]),
            ),
        ]
    )


def _change(
    node: LifecycleNode, transition_id: int, condition: IfCondition | None = None
) -> EmitEvent:
    return EmitEvent(
        event=ChangeState(
            lifecycle_node_matcher=matches_action(node), transition_id=transition_id
        ),
        condition=condition,
    )
