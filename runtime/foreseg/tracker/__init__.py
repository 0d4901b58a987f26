# SPDX-License-Identifier: Apache-2.0
"""Trackers: from a spatial prompt on a keyframe to masks on the frames after it.

They know nothing of queries or tracks, nor which back-end runs their graphs.
"""
