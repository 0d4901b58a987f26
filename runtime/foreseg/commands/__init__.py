# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `foreseg`, one a module: each has `add_command(subparsers)`.

They read options, call and print; no rule about frames, queries or masks is decided here.
"""
