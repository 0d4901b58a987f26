# SPDX-License-Identifier: Apache-2.0
"""`foreseg doctor`: what this machine has, and what to do about what is missing."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict

from foreseg.commands.checks import Check, Level


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine has, and what to do about what is missing",
        description="Exit code 1 only if the core cannot run here.",
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.set_defaults(handler=examine)


def examine(arguments: argparse.Namespace) -> int:
    """Run the checks and print them."""
    from foreseg.commands.checks import run_checks

    checks = run_checks(os.environ)
    can_run = not any(check.is_core and check.level is Level.MISSING for check in checks)
    if arguments.json:
        records = [{**asdict(check), "level": check.level.value} for check in checks]
        print(json.dumps({"can_run": can_run, "checks": records}, indent=2))
    else:
        _print(checks, can_run=can_run)
    return 0 if can_run else 1


def _print(checks: Sequence[Check], *, can_run: bool) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.level.value.ljust(7)}  {check.name.ljust(width)}  {check.found}")
        if check.advice:
            print(f"{' ' * (11 + width)}-> {check.advice}")
    print("foreseg can run here." if can_run else "foreseg cannot run here: see MISSING above.")
