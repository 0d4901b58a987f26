# SPDX-License-Identifier: Apache-2.0
"""The page of `foreseg_view` beside a node: a plain subscriber and client, in a process of its own."""
