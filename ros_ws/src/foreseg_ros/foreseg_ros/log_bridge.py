# SPDX-License-Identifier: Apache-2.0
"""The core's logging, as lines of a node's log."""

from __future__ import annotations

import logging

from rclpy.node import Node

from foreseg.texts import utf8_text


class RosLogHandler(logging.Handler):
    """Bridges the core's logging to the node's logger."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Forward a record at its level; who logs never fails for it."""
        try:
            self._forward(record.levelno, utf8_text(self.format(record)))
        except Exception:  # noqa: BLE001 (as logging's own handlers)
            self.handleError(record)

    def _forward(self, level: int, text: str) -> None:
        if level >= logging.ERROR:
            self._logger.error(text)
        elif level >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)
