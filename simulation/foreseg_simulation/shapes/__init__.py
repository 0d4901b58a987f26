# SPDX-License-Identifier: Apache-2.0
"""The shapes world: drawn things that move on a plane, and its scenes.

What the tabletop world needs too lies beside the two, and nothing here knows of clips or files.
"""
