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
from foreseg.files import user_path
from foreseg.tracker.views import tracker_factory
from foreseg_ros import qos
from foreseg_ros.action import AskForesightServer
from foreseg_ros.arguments import (
    HELP,
    WRONG_ARGUMENTS,
    program_arguments,
    stray_text,
    stray_words,
    unread_files,
    usage,
)
from foreseg_ros.bonding import Bond
from foreseg_ros.camera_infos import CameraInfos, InfoOutput
from foreseg_ros.clocks import SimTimeWatch, stamp_now_ns, steady_timer
from foreseg_ros.conversions import header_from_stamp
from foreseg_ros.depths import DepthOutput
from foreseg_ros.diagnostics import (
    Lifecycle,
    NodeFacts,
    diagnostics_before_configure,
    diagnostics_from_snapshot,
    transport_problem,
)
from foreseg_ros.guard import Guard, GuardedExecutor
from foreseg_ros.inputs import ImageInputs
from foreseg_ros.log_bridge import RosLogHandler
from foreseg_ros.names import NameWatch
from foreseg_ros.parameters import (
    NodeSettings,
    check_change,
    config_from_node,
    declare_parameters,
    settings_from_node,
)
from foreseg_ros.publishing import BesideMasks, RosOutput
from foreseg_ros.query_masks import QueryMasks
from foreseg_ros.services import Services
from foreseg_ros.topics import Topics, plain_publisher, unused_overrides

NUM_THREADS = 3  # images, services, lifecycle
DIAGNOSTICS_PERIOD_S = 1.0
MAPS = Path("/proc/self/maps")
PROGRAM = "foreseg_node"
MORE = "docs/ros.md has the parameters and topics, and the launch file that sets most of them"
SIGNAL_POLL_S = 0.2  # a signal is seen within this
# An image passes three threads. At Python's own 5 ms each may wait so long for the interpreter,
# and on a busy machine the next image overwrites it (docs/log.md, 2026-11-21).
SWITCH_INTERVAL_S = 0.0005


Transition = Callable[["ForesegNode", LifecycleState], TransitionCallbackReturn]


def _told(transition: Transition) -> Transition:
    """Note what a transition raises: rclpy turns it into an error without a word."""

    @wraps(transition)
    def told(node: ForesegNode, state: LifecycleState) -> TransitionCallbackReturn:
        node.failure = ""
        try:
            return transition(node, state)
        except Exception as error:  # noqa: BLE001 (the transition's outermost frame)
            node.failure = f"{transition.__name__}: {node.guard.note(transition.__name__, error)}"
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
        self.failure = ""  # of the last transition
        self._settings: NodeSettings | None = None
        self._bundle: Bundle | None = None
        self._worker: Worker | None = None
        self._output: RosOutput | None = None
        self._served: Services | None = None
        self._action: AskForesightServer | None = None
        self._inputs: ImageInputs | None = None
        self._bond: Bond | None = None
        self._topics = Topics(self)  # from configure to cleanup
        self._infos = CameraInfos()
        self._depth: DepthOutput | None = None
        self._query_masks: QueryMasks | None = None
        self._input_topics = Topics(self)  # from activate to deactivate
        self._own_timers: list[Timer] = []
        self._sim_time = SimTimeWatch(self)
        self._name = NameWatch(self, self._clock_ns)
        self._diagnostics = plain_publisher(
            self, DiagnosticArray, "/diagnostics", qos.diagnostics()
        )
        self._transport = transport_problem(
            rclpy.get_rmw_implementation_identifier(), os.environ, MAPS.read_text()
        )
        if self._transport is not None:
            self.get_logger().warning(self._transport)
        steady_timer(self, DIAGNOSTICS_PERIOD_S, self._diagnose, self._timers_group)
        for service in self.services:  # of the lifecycle and of parameters: rclpy's own
            self.guard.watch(service)

    @_told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load the engines, start the worker and the reasoner's process."""
        try:
            self._configure(config_from_node(self), settings_from_node(self))
        except (ForesegError, OSError) as error:
            self.release()
            return self._failed(f"configure failed: {error}")
        return super().on_configure(state)

    def _configure(self, config: Config, settings: NodeSettings) -> None:
        """Make all parts; those that were made before one fails are the caller's to release."""
        bundle = self._bundle = load_configured(config.tracker)
        make = tracker_factory(bundle, config.tracker.view)
        executor = Executor(config, settings.cameras, make)
        self._settings = settings
        self._output = RosOutput(
            self, self._topics, settings, executor, self.guard, self._beside_masks(settings)
        )
        trace = _trace(config, settings)
        self._worker = Worker(
            config, settings.cameras, executor, self._output, clock=self._clock_ns, trace=trace
        )
        self._worker.start()
        self._served = Services(self, self._topics, self._worker, settings, self.guard)
        self._action = AskForesightServer(self, self._worker, self._served, self.guard)
        self._own_timers = [
            steady_timer(
                self, 1.0 / settings.overlay_hz, self._publish_overlays, self._timers_group
            ),
        ]
        self.get_logger().info(
            f"configured: bundle {config.tracker.bundle} on {bundle.backend}, reasoner {config.reasoner.kind},"
            f" cameras {', '.join(settings.cameras)}"
        )

    def _beside_masks(self, settings: NodeSettings) -> list[BesideMasks]:
        """What the settings want to be published with the masks."""
        found: list[BesideMasks] = []
        if settings.camera_info:
            found.append(InfoOutput(self._topics, settings, self._infos))
        if settings.query_masks:
            self._query_masks = QueryMasks(self)
            found.append(self._query_masks)
        if settings.depth:
            self._depth = DepthOutput(self, self._topics, settings, self._infos)
            found.append(self._depth)
        return found

    @_told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        result = super().on_activate(state)
        worker, settings = self._worker, self._settings
        if worker is None or settings is None:
            return TransitionCallbackReturn.FAILURE
        try:
            self._infos.subscribe(self, self._input_topics, settings)
            if self._depth is not None:
                self._depth.subscribe(self._input_topics)
            self._inputs = ImageInputs(self, self._input_topics, worker, settings, self._clock_ns)
            self._bond = Bond(self) if settings.bond else None
        except ConfigError as error:
            self._unsubscribe()
            super().on_deactivate(state)
            return self._failed(f"activate failed: {error}")
        unused = unused_overrides(self)
        if unused is not None:
            self.get_logger().warning(unused)
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

    def _failed(self, text: str) -> TransitionCallbackReturn:
        self.failure = text
        self.get_logger().error(text)
        return TransitionCallbackReturn.FAILURE

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
        depth, self._depth = self._depth, None
        if depth is not None:
            depth.destroy()
        query_masks, self._query_masks = self._query_masks, None
        if query_masks is not None:
            query_masks.destroy()
        self._output = None
        self._topics.destroy()

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
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.end()
        self._inputs = None
        self._input_topics.destroy()

    def _diagnose(self) -> None:
        problems = {
            "transport": self._transport,
            "time": self._sim_time.problem(),
            "name": self._name.problem(),
        }
        name, header = self.get_fully_qualified_name(), header_from_stamp(stamp_now_ns(self), "")
        worker, bundle, inputs, depth = self._worker, self._bundle, self._inputs, self._depth
        if worker is None or bundle is None:
            lifecycle = Lifecycle(state="unconfigured", failure=self.failure)
            self._diagnostics.publish(
                diagnostics_before_configure(name, lifecycle, problems, header=header)
            )
            return
        if inputs is not None:
            inputs.look_for_silence()
        snapshot = worker.snapshot()
        if self._query_masks is not None:
            self._query_masks.keep_up([entry.query for entry in snapshot.state.queries])
        state = "inactive" if inputs is None else "active"
        facts = NodeFacts(
            name=name,
            lifecycle=Lifecycle(state=state, failure=self.failure),
            backend=bundle.backend,
            topics={} if inputs is None else inputs.topics,
            drops={} if inputs is None else inputs.drop_problems(snapshot.state.cameras),
            problems=problems if depth is None else {**problems, "depth": depth.problem()},
            counts={} if depth is None else {"depth": depth.counts()},
            guard=self.guard,
        )
        self._diagnostics.publish(
            diagnostics_from_snapshot(
                snapshot, facts, header=header, now_ns=self._clock_ns.monotonic_ns()
            )
        )

    def _check_change(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        return check_change(parameters, is_configured=self._worker is not None)


def _trace(config: Config, settings: NodeSettings) -> TraceWriter | None:
    """The trace that the settings want.

    Raises:
        ConfigError: its file cannot be begun.
    """
    if not settings.trace_path:
        return None
    path = user_path(settings.trace_path)
    try:
        return TraceWriter(path, config, settings.cameras, max_bytes=settings.trace_max_bytes)
    except OSError as error:
        msg = (
            "parameter trace_path wants a file that can be written,"
            f" got {settings.trace_path!r}: {error.strerror}"
        )
        raise ConfigError(msg) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it; 1 if an argument is wrong or autostart failed.

    SIGINT, SIGTERM, and SIGHUP of a terminal that closes unless that is ignored, as under nohup.

    rclpy's own signal handlers would shut the context down under the worker, which still
    publishes: so the signals only end the spinning, and the order is stop, join, destroy.
    """
    words = program_arguments(arguments)
    if HELP & set(words):
        sys.stdout.write(f"{usage(PROGRAM, MORE)}\n")
        return 0
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
        stray = stray_words(words)
        if stray:
            raise ConfigError(stray_text(PROGRAM, stray))
        node = ForesegNode()
    except WRONG_ARGUMENTS as error:
        get_logger("foreseg").fatal(str(error))
        rclpy.try_shutdown()
        return 1
    for text in unread_files(words, node.get_fully_qualified_name()):
        node.get_logger().warning(text)
    handler = RosLogHandler(node)
    logging.getLogger("foreseg").addHandler(handler)
    logging.getLogger("foreseg").setLevel(logging.INFO)
    executor = GuardedExecutor(node.guard, NUM_THREADS)
    executor.add_node(node)
    status = 0
    try:
        if not node.get_parameter("autostart").value:
            node.get_logger().info(_waiting_text(node.get_fully_qualified_name()))
        elif not _autostarted(node):
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


def _waiting_text(name: str) -> str:
    return (
        f"unconfigured, until `ros2 lifecycle set {name} configure` and then `activate`,"
        " or a lifecycle manager; with -p autostart:=true the node does both by itself"
    )


def _autostarted(node: ForesegNode) -> bool:
    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() != TransitionCallbackReturn.SUCCESS:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
