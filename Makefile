# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Everything happens in .venv; set-up repeats only what changed.

PYTHON ?= python3
VIDEO ?=
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(PYTHON) ros_ws/setup_venv.py

# Tests run side by side, file by file, those that take long first; WORKERS=0 runs them in one process.
WORKERS ?= $(shell nproc)
# A process that dies ends the run, with the name of its test: xdist 3.8 would wait for ever at the end (docs/log.md).
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

# Another ROS, sourced in this shell, must not leak into the environment of the wheels.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
# Some images forbid to keep compiled Python: hundreds of test processes would compile it all again.
unexport PYTHONDONTWRITEBYTECODE
unexport LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION

.PHONY: help python venv venv-dev demo test lint format types unit faults fuzz matrix release audit docs clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "set-up failed: no $(PYTHON) here; sudo apt install python3 python3-venv" >&2; exit 1; }

venv: python  ## the environment of the demo: ROS 2 wheels, foreseg_msgs, foreseg
	@$(SETUP)

venv-dev: python  ## the same, and what the tests need (torch among it)
	@$(SETUP) --with dev

demo: venv  ## the main job over real ROS 2; VIDEO=file for your own
	@$(BIN)/python -m foreseg_ros.demo $(if $(VIDEO),--video "$(VIDEO)")

test: venv-dev  ## lint, types and all tests
	@$(MAKE) --no-print-directory run-lint run-types run-tests

lint: venv-dev run-lint  ## ruff: lint and format
types: venv-dev run-types  ## mypy: strict for the core and the node

format: venv-dev  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: venv-dev  ## the fast tests alone: no ROS, nothing slow, no whole programs
	$(PYTEST) -m "not ros and not slow" --ignore tests/integration

.PHONY: run-lint run-types run-tests
run-lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

run-types:
	$(BIN)/mypy

run-tests:
	$(PYTEST) --durations=10

faults: venv-dev  ## what goes wrong on a robot, with real processes, and what was measured; minutes
	$(BIN)/python -m pytest -m fault

# New examples each round; an example that failed is kept in .hypothesis/ and tried first.
ROUNDS ?= 10
FUZZED := tests/property tests/ros/test_conversions.py tests/unit/media tests/unit/engines/test_manifest.py \
	tests/unit/evaluation/test_datasets_nonsense.py tests/unit/driving/test_trace.py tests/unit/reasoner/test_channel.py
fuzz: venv-dev  ## what comes from outside, with new examples in each of ROUNDS rounds
	@for round in $$(seq $(ROUNDS)); do $(PYTEST) -q $(FUZZED) || exit 1; done

matrix: python  ## the node's tests on every ROS 2 distribution that PyPI has wheels of
	$(PYTHON) ros_ws/matrix.py

release: venv-dev  ## wheel, source and SHA256SUMS in dist/
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python setup.py -q sdist --dist-dir dist bdist_wheel --dist-dir dist
	cd dist && sha256sum -- * > SHA256SUMS && cat SHA256SUMS

audit: venv-dev  ## known faults of what is installed, by pip-audit; fails where its service is not reached
	$(BIN)/python -m venv build/audit && build/audit/bin/pip install -q pip-audit
	build/audit/bin/pip-audit --strict --skip-editable --path $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

docs: venv-dev  ## the site of docs/ with the core's API, in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "look at it: $(BIN)/python -m http.server -d build/docs"

clean:  ## remove the environment and everything made
	rm -rf $(VENV) build dist demo_out .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	rm -rf ros_ws/build ros_ws/install ros_ws/log runtime/*.egg-info *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
