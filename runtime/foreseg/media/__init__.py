# SPDX-License-Identifier: Apache-2.0
"""Where frames come from, and where what was found goes: files, cameras, drawn pictures.

Nothing here decides what is asked or tracked, starts a thread, or knows who drives the step.
"""
