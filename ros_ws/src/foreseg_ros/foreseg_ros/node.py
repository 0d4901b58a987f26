# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node `foreseg`: images in, masks, tracks and answers out.

Engines load in configure; nothing is subscribed before activate. All state is the worker's; the
callbacks here convert, hand over, and return.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer

from foreseg.clock import SystemClock
from foreseg.commands.fast_dds import SHARED_MEMORY, remove_abandoned
from foreseg.config import Config
from foreseg.driving.executor import Executor
from foreseg.driving.trace import TraceWriter
from foreseg.driving.worker import Worker
from foreseg.engines.load import Bundle, load_configured
from foreseg.errors import ConfigError, ForesegError
from foreseg.texts import utf8_text
from foreseg.tracker.sam2 import Sam2Tracker
from foreseg_ros import qos
from foreseg_ros.action import AskForesightServer
from foreseg_ros.clocks import SimTimeWatch, stamp_now_ns, steady_timer
from foreseg_ros.conversions import header_from_stamp
from foreseg_ros.diagnostics import NodeFacts, diagnostics_from_snapshot, transport_problem
from foreseg_ros.guard import Guard, GuardedExecutor
from foreseg_ros.inputs import ImageInputs
from foreseg_ros.names import NameWatch
from foreseg_ros.parameters import (
    NodeSettings,
    check_change,
    config_from_node,
    declare_parameters,
    settings_from_node,
)
from foreseg_ros.publishing import RosOutput
from foreseg_ros.services import Services

NUM_THREADS = 3  # images, services, lifecycle
DIAGNOSTICS_PERIOD_S = 1.0
MAPS = Path("/proc/self/maps")
SIGNAL_POLL_S = 0.2  # a signal is seen within this
# An image passes three threads. At Python's own 5 ms each may wait so long for the interpreter,
# and on a busy machine the next image overwrites it (docs/log.md, 2026-11-21).
SWITCH_INTERVAL_S = 0.0005


Transition = Callable[["ForesegNode", LifecycleState], TransitionCallbackReturn]


def _told(transition: Transition) -> Transition:
    """Note what a transition raises: rclpy turns it into an error without a word."""

    @wraps(transition)
    def told(node: ForesegNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:  # noqa: BLE001 (the transition's outermost frame)
            node.guard.note(transition.__name__, error)
            return TransitionCallbackReturn.ERROR

    return told


class ForesegNode(LifecycleNode):
    """See the module; `autostart` lets it configure and activate itself."""

    def __init__(
        self,
        *,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Declare parameters.

        Raises:
            ConfigError: one was given a value that it cannot have.
        """
        LifecycleNode.__init__(
            self, "foreseg", context=context, parameter_overrides=parameter_overrides
        )
        declare_parameters(self)
        self.add_on_set_parameters_callback(self._check_change)
        self._timers_group = MutuallyExclusiveCallbackGroup()
        self._clock_ns = SystemClock()
        self.guard = Guard()
        self._settings: NodeSettings | None = None
        self._bundle: Bundle | None = None
        self._worker: Worker | None = None
        self._output: RosOutput | None = None
        self._served: Services | None = None
        self._action: AskForesightServer | None = None
        self._inputs: ImageInputs | None = None
        self._own_timers: list[Timer] = []
        self._sim_time = SimTimeWatch(self)
        self._name = NameWatch(self, self._clock_ns)
        self._diagnostics = Node.create_publisher(
            self, DiagnosticArray, "/diagnostics", qos.diagnostics()
        )
        self._transport = transport_problem(
            rclpy.get_rmw_implementation_identifier(), os.environ, MAPS.read_text()
        )
        if self._transport is not None:
            self.get_logger().warning(self._transport)
        for service in self.services:  # of the lifecycle and of parameters: rclpy's own
            self.guard.watch(service)

    @_told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load the engines, start the worker and the reasoner's process."""
        try:
            config, settings = config_from_node(self), settings_from_node(self)
            bundle = self._bundle = load_configured(config.tracker)
            executor = Executor(
                config, settings.cameras, lambda rows: Sam2Tracker(bundle, max_objects=rows)
            )
            trace = _trace(config, settings)
        except (ForesegError, OSError) as error:
            self._close_bundle()
            self.get_logger().error(f"configure failed: {error}")
            return TransitionCallbackReturn.FAILURE
        self._settings = settings
        self._output = RosOutput(self, settings, executor, self.guard)
        self._worker = Worker(
            config, settings.cameras, executor, self._output, clock=self._clock_ns, trace=trace
        )
        self._worker.start()
        self._served = Services(self, self._worker, settings, self.guard)
        self._action = AskForesightServer(self, self._worker, self._served, self.guard)
        self._own_timers = [
            steady_timer(
                self, 1.0 / settings.overlay_hz, self._publish_overlays, self._timers_group
            ),
            steady_timer(self, DIAGNOSTICS_PERIOD_S, self._diagnose, self._timers_group),
        ]
        self.get_logger().info(
            f"configured: bundle {config.tracker.bundle} on {bundle.backend}, reasoner {config.reasoner.kind},"
            f" cameras {', '.join(settings.cameras)}"
        )
        return super().on_configure(state)

    @_told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        result = super().on_activate(state)
        worker, settings = self._worker, self._settings
        if worker is None or settings is None:
            return TransitionCallbackReturn.FAILURE
        self._inputs = ImageInputs(self, worker, settings, self._clock_ns)
        return result

    @_told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """No more images; tracks and queries stay."""
        self._unsubscribe()
        return super().on_deactivate(state)

    @_told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the worker and let the engines go."""
        self.release()
        return super().on_cleanup(state)

    @_told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, from any state."""
        self.release()
        return super().on_shutdown(state)

    @_told
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition has raised: back to unconfigured, with nothing left over."""
        self.release()
        return super().on_error(state)

    def release(self) -> None:
        """Stop, join, then destroy the publishers; may be called twice."""
        self._unsubscribe()
        for timer in self._own_timers:
            self.destroy_timer(timer)
        self._own_timers = []
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        self._close_bundle()
        action, self._action = self._action, None
        if action is not None:
            action.destroy()
        services, self._served = self._served, None
        if services is not None:
            services.destroy()
        output, self._output = self._output, None
        if output is not None:
            output.destroy()

    def _publish_overlays(self) -> None:
        worker, output = self._worker, self._output
        if worker is not None and output is not None:
            output.publish_overlays(worker.snapshot().state)

    def _close_bundle(self) -> None:
        """Let the engines and their device go; nothing tracks any more."""
        bundle, self._bundle = self._bundle, None
        if bundle is not None:
            bundle.close()

    def _unsubscribe(self) -> None:
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            inputs.destroy()

    def _diagnose(self) -> None:
        worker, bundle, inputs = self._worker, self._bundle, self._inputs
        if worker is None or bundle is None:
            return
        if inputs is not None:
            inputs.look_for_silence()
        snapshot = worker.snapshot()
        facts = NodeFacts(
            name=self.get_fully_qualified_name(),
            backend=bundle.backend,
            topics={} if inputs is None else inputs.topics,
            drops={} if inputs is None else inputs.drop_problems(snapshot.state.cameras),
            problems={
                "transport": self._transport,
                "time": self._sim_time.problem(),
                "name": self._name.problem(),
            },
            guard=self.guard,
        )
        self._diagnostics.publish(
            diagnostics_from_snapshot(
                snapshot,
                facts,
                header=header_from_stamp(stamp_now_ns(self), ""),
                now_ns=self._clock_ns.monotonic_ns(),
            )
        )

    def _check_change(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        return check_change(parameters, is_configured=self._worker is not None)


def _trace(config: Config, settings: NodeSettings) -> TraceWriter | None:
    if not settings.trace_path:
        return None
    path = Path(settings.trace_path)
    return TraceWriter(path, config, settings.cameras, max_bytes=settings.trace_max_bytes)


class _RosLogHandler(logging.Handler):
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it; 1 if an argument is wrong or autostart failed.

    SIGINT, SIGTERM, and SIGHUP of a terminal that closes unless that is ignored, as under nohup.

    rclpy's own signal handlers would shut the context down under the worker, which still
    publishes: so the signals only end the spinning, and the order is stop, join, destroy.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stopping = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, lambda *_: stopping.set())
    _clean_shared_memory()
    try:
        rclpy.init(
            args=None if arguments is None else list(arguments),
            signal_handler_options=SignalHandlerOptions.NO,
        )
        node = ForesegNode()
    except (ConfigError, RuntimeError) as error:  # RuntimeError: rcl cannot read the arguments
        get_logger("foreseg").fatal(str(error))
        rclpy.try_shutdown()
        return 1
    handler = _RosLogHandler(node)
    logging.getLogger("foreseg").addHandler(handler)
    logging.getLogger("foreseg").setLevel(logging.INFO)
    executor = GuardedExecutor(node.guard, NUM_THREADS)
    executor.add_node(node)
    status = 0
    try:
        if node.get_parameter("autostart").value and not _autostarted(node):
            status = 1
            stopping.set()
        while not stopping.is_set() and rclpy.ok():
            executor.spin_once(timeout_sec=SIGNAL_POLL_S)
    except ExternalShutdownException:
        pass  # somebody else ended the context: leave the same way
    finally:
        node.release()
        logging.getLogger("foreseg").removeHandler(handler)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return status


def _clean_shared_memory() -> None:
    """Remove what killed processes left, before this one needs room of its own."""
    num_removed, num_bytes = remove_abandoned()
    if num_removed:
        get_logger("foreseg").info(
            f"removed {num_removed} segments of killed processes from {SHARED_MEMORY}:"
            f" {num_bytes / 1e6:.0f} MB"
        )


def _autostarted(node: ForesegNode) -> bool:
    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() != TransitionCallbackReturn.SUCCESS:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
