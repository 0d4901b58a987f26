# SPDX-License-Identifier: Apache-2.0
"""What a newcomer types: help, words that ROS passes over, files for other nodes, no autostart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from rclpy.parameter import Parameter

from foreseg.errors import ConfigError
from foreseg_ros.arguments import stray_words, unread_files
from foreseg_ros.parameters import _value_of
from tests.ros.ros_harness import (
    PROGRAM,
    WAIT_S,
    NodeProcess,
    became,
    environment,
    random_domain,
)

pytestmark = pytest.mark.ros

VIEW = "import sys; from foreseg.programs import view; sys.exit(view())"


def said(*words: str, program: str = PROGRAM) -> tuple[int, str]:
    """What a node that cannot start, or was only asked for help, says; and its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment(random_domain()),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_S,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("words", "stray"),
    [
        (["--ros-args", "-p", "autostart:=true", "-r", "image:=/x"], []),
        (["--ros-args", "--log-level", "debug", "--", "more"], ["more"]),
        (["--bundle", "nano"], ["--bundle", "nano"]),
        ([], []),
    ],
)
def test_what_ros_passes_over_is_found(words: Sequence[str], stray: Sequence[str]) -> None:
    assert stray_words(words) == stray


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("foreseg:\n  ros__parameters: {autostart: true}\n", None),
        ("/foreseg:\n  ros__parameters: {day: 2026-13-45}\n", None),
        ("/**:\n  ros__parameters: {}\nother:\n  ros__parameters: {}\n", None),
        ("/robot/foreseg:\n  ros__parameters: {}\n", "it names /robot/foreseg"),
        ("robot:\n  foreseg:\n    ros__parameters: {}\n", "it names /robot/foreseg"),
        ("foreseg_node:\n  ros__parameters: {}\n", "it names /foreseg_node"),
        ("", "it is empty"),
    ],
)
def test_a_file_for_another_node_is_told(tmp_path: Path, text: str, told: str | None) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(text)
    words = ["--ros-args", "--params-file", str(file)]
    lines = unread_files(words, "/foreseg")
    assert len(lines) == (told is not None)
    for line in lines:
        assert f"parameter file {file} has no section /foreseg or /**" in line
        assert line.endswith(told or "")


def test_a_file_that_only_rcl_can_read_ends_nothing(tmp_path: Path) -> None:
    file = tmp_path / "parameters.yaml"
    section = "/foreseg:\n  ros__parameters: {}\n"
    file.write_text(f"{section}---\n{section}")
    words = ["--ros-args", "--params-file", str(file), "--params-file", str(tmp_path / "gone")]
    two, gone = unread_files(words, "/foreseg")
    assert f"{file} was not looked at for other nodes: expected a single document" in two
    assert "No such file" in gone


@pytest.mark.parametrize(
    ("section", "node_name", "is_for"),
    [
        ("/*/foreseg", "/robot/foreseg", True),
        ("/*/foreseg", "/foreseg", False),
        ("/**/foreseg", "/a/b/foreseg", True),
        ("/**/foreseg", "/foreseg", True),
        ("/robot/**", "/robot/foreseg", True),
        ("/robot", "/robot/foreseg", False),
    ],
)
def test_patterns_are_read_as_ros_reads_them(
    tmp_path: Path, section: str, node_name: str, *, is_for: bool
) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(f"{section}:\n  ros__parameters: {{}}\n")
    assert (unread_files(["--params-file", str(file)], node_name) == []) is is_for


def test_one_core_is_a_text_though_ros_makes_a_number_of_it() -> None:
    assert _value_of(Parameter("tracker.cores", value=0), "") == "0"
    with pytest.raises(ConfigError, match=r"parameter tracker.cores wants a text, got True"):
        _value_of(Parameter("tracker.cores", value=True), "")


def test_help_says_how_it_is_started_and_starts_nothing() -> None:
    code, text = said("--help")
    assert code == 0
    assert text.startswith("foreseg_node takes ROS's arguments alone:\n")
    assert "--ros-args -p NAME:=VALUE" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--bundle", "nano"), "got '--bundle' 'nano'"),
        (("-p", "autostart:=true"), "behind --ros-args (--help tells more), got '-p'"),
        (("--ros-args", "-p", "use_sim_time:=1"), "'use_sim_time' to '1'"),
        (
            ("--ros-args", "-p", "cameras:=[]"),
            "parameter cameras wants a list of texts, got nothing",
        ),
        (("--ros-args", "-r", "image:="), "-r image:="),
        (("--ros-args", "-r", "__ns:=robot"), "__ns:=robot"),
        (("--ros-args", "--log-level", "loud"), "--log-level loud"),
    ],
)
def test_a_wrong_word_ends_it_with_one_sentence(words: Sequence[str], told: str) -> None:
    code, text = said(*words)
    assert code == 1
    fatal = [line for line in text.splitlines() if "[FATAL]" in line]
    assert len(fatal) == 1
    assert told in fatal[0]
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--port", "8600"), "foreseg_view takes ROS's arguments alone"),
        (("--ros-args", "-p", "port:=http"), "'port' to 'http'"),
        (("--ros-args", "-p", "node:=1"), "'node' to '1'"),
        (("--ros-args", "-p", "host:=no.such.host.invalid"), "no.such.host.invalid"),
        (("--ros-args", "-p", "port:=70000"), "port wants 0 to 65535, got 70000"),
        (("--ros-args", "-p", "max_bytes:=0"), "max_bytes"),
    ],
)
def test_the_page_beside_a_node_ends_with_one_sentence_too(
    words: Sequence[str], told: str
) -> None:
    pytest.importorskip("starlette", reason="needs Starlette: pip install 'foreseg[view]'")
    code, text = said(*words, program=VIEW)
    assert code == 1
    assert "Traceback" not in text
    fatal = [line for line in text.splitlines() if "[FATAL]" in line]
    assert len(fatal) == 1, text
    assert told in fatal[0]
    code, text = said("--help", program=VIEW)
    assert (code, "docs/view.md" in text) == (0, True)


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ("trace_path:={folder}", "trace_path wants a file that can be written, got '{folder}'"),
        ("tracker.bundle:=~/no_such_bundle", "no engine bundle in /"),
        ("cameras:=[a, a]", "cameras wants different names"),
        ("cameras:=[front left]", "cameras wants different names"),
        ("tracker.backend:=gpu", "a back-end is one of cpu"),
        ("tracker.view:=far", "tracker.view"),
    ],
)
def test_a_wrong_value_fails_configure_with_one_sentence(
    tmp_path: Path, parameter: str, told: str
) -> None:
    code, text = said(
        *("--ros-args", "-p", "autostart:=true", "-p", parameter.format(folder=tmp_path))
    )
    assert code == 1
    assert told.format(folder=tmp_path) in text
    assert "Traceback" not in text
    assert "never retrieved" not in text


def test_a_node_that_waits_says_for_what(tmp_path: Path) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text("foreseg_node:\n  ros__parameters: {autostart: true}\n")
    node = NodeProcess(
        random_domain(),
        tmp_path / "node.log",
        arguments=["--params-file", str(file)],
        remaps=["__ns:=/robot"],
    )
    try:
        assert became(lambda: node.says("lifecycle set /robot/foreseg configure"))
        assert node.says("INFO", "lifecycle set /robot/foreseg configure", "autostart:=true")
        assert node.says("WARN", "has no section /robot/foreseg or /**", "it names /foreseg_node")
    finally:
        assert node.stop() == 0
