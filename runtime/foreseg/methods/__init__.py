# SPDX-License-Identifier: Apache-2.0
"""The papers' methods: which frames, which words, and how a completion becomes prompts.

They call nothing and know no process or server, so training runs the same code as the robot.
"""
