# SPDX-License-Identifier: Apache-2.0
"""Whatever a callback raises ends that callback, never the node: logged, counted, told.

rclpy's executors raise it again from `spin_once`, and an entity whose message could not even be
taken is never looked at again. Who called a service gets a failure with the reason.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from foreseg_msgs import msg as messages
from rclpy.context import Context
from rclpy.executors import (
    ExternalShutdownException,
    MultiThreadedExecutor,
    TimeoutException,
    await_or_execute,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rclpy.service import Service
from rclpy.task import Task

from foreseg.clock import SystemClock
from foreseg.texts import reason_from_error

if TYPE_CHECKING:
    from rclpy.executors import WaitableEntityType  # Kilted has it no more

_LOG = logging.getLogger("foreseg.node")
DESTROYED_SERVER = "action server pointer is invalid"
LOG_PERIOD_NS = 1_000_000_000  # between two lines in the log; all are counted

Take = Callable[[object], object]


class _Message(Protocol):
    """Any message or response."""

    def __init__(self, **fields: object) -> None: ...

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]: ...


class _Watched(Protocol):
    """A service, as far as it is changed here."""

    callback: Callable[[object, object], object]


class Guard:
    """Counts failures of callbacks, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = SystemClock()
        self._logged_ns: int | None = None
        self.num_failures = 0
        self.last = ""  # where, and what was raised

    def note(self, where: str, error: BaseException) -> str:
        """Count a failure, and log it unless one was logged just now; returns its reason."""
        reason, now = reason_from_error(error), self._clock.monotonic_ns()
        with self._lock:
            self.num_failures += 1
            self.last = f"{where}: {reason}"
            is_quiet = self._logged_ns is None or now - self._logged_ns >= LOG_PERIOD_NS
            if is_quiet:
                self._logged_ns = now
        if is_quiet:
            _LOG.error("%s failed: %s", where, reason, exc_info=error)
        return reason

    def watch(self, service: Service) -> None:
        """Let a service reply with a failure where its callback raises."""
        callback, name = service.callback, service.srv_name

        async def replying(request: object, response: object) -> object:
            try:
                given = await await_or_execute(callback, request, response)
                serialize_message(given)  # what cannot be sent would leave the caller waiting
            except Exception as error:  # noqa: BLE001 (the callback's outermost frame)
                return failed_response(type(cast("_Message", response)), self.note(name, error))
            return given

        cast("_Watched", service).callback = replying


class GuardedExecutor(MultiThreadedExecutor):
    """Goes on after whatever a callback, or the taking of a message, raises."""

    def __init__(self, guard: Guard, num_threads: int, *, context: Context | None = None) -> None:
        super().__init__(num_threads=num_threads, context=context)
        self._failures = guard

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for work and hand it to a thread; tells what finished work has raised."""
        try:
            super().spin_once(timeout_sec)
        except ExternalShutdownException:
            raise
        except Exception as error:  # noqa: BLE001 (the executor's outermost frame)
            self._failures.note("a callback", error)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """As rclpy's, which does not wait for what it has handed to threads (7.1).

        That needs the executor's own handles until it ends; rclpy would only print what it raises.
        """
        self._executor.shutdown(wait=True)
        is_over = super().shutdown(timeout_sec)
        for task in self._futures:
            error = task.exception() if task.done() else None
            if error is not None:
                self._failures.note("a callback", error)
        self._futures.clear()
        return is_over

    def wait_for_ready_callbacks(
        self, *args: object, **kwargs: object
    ) -> tuple[Task, WaitableEntityType, Node]:
        """As rclpy's; where another thread destroys an entity just now, nothing is ready this time.

        rclpy passes over destroyed subscriptions, timers and services there, and forgets the events
        of publishers and subscriptions, and action servers, which rcl then calls invalid (7.1).

        Raises:
            TimeoutException: nothing is ready.
        """
        try:
            return super().wait_for_ready_callbacks(*args, **kwargs)
        except rclpy_implementation.InvalidHandle as error:
            raise TimeoutException from error
        except rclpy_implementation.RCLError as error:
            if DESTROYED_SERVER not in str(error):
                raise
            raise TimeoutException from error

    def _make_handler(
        self, entity: WaitableEntityType, node: Node, take_from_wait_list: Take, *rest: object
    ) -> Task:
        """As rclpy's, but what cannot be taken counts as nothing there: the entity stays in use.

        Humble's has one argument more; both take None for nothing.
        """

        def taken(entity: object) -> object:
            try:
                return take_from_wait_list(entity)
            except Exception as error:  # noqa: BLE001 (malformed bytes from anywhere)
                self._failures.note(f"taking from {name_of(entity)}", error)
                return None

        return super()._make_handler(entity, node, taken, *rest)


def failed_response(kind: type[_Message], reason: str) -> _Message:
    """A response that says what failed, as far as its type has room for it."""
    known = {
        "success": False,
        "message": reason,
        "answer": messages.Answer(status=messages.Answer.FAILED, reason=reason),
    }
    names = kind.get_fields_and_field_types()
    return kind(**{name: value for name, value in known.items() if name in names})


def name_of(entity: object) -> str:
    """The topic or service of an entity, or its type."""
    for attribute in ("topic_name", "srv_name", "service_name"):
        name = getattr(entity, attribute, None)
        if isinstance(name, str):
            return name
    return type(entity).__name__
