# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 shell of foreseg: node, messages, quality of service, demo. Needs rclpy."""
