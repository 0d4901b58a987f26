# SPDX-License-Identifier: Apache-2.0
"""Many independent tasks, done by this process, by threads, by processes, or by a cluster.

What the tasks are for is unknown here. Not for the live pipeline, which has threads of its own.
"""
