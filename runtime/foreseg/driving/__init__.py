# SPDX-License-Identifier: Apache-2.0
"""What drives the step: threads on a real clock (`worker`), or a simulated one (`player`).

What follows from an event is decided in `pipeline`, never here; nothing here decodes or draws.
"""
