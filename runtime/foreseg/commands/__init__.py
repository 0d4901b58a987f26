# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `foreseg`, one a module: each has `add_command(subparsers)`."""
