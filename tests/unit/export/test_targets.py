# SPDX-License-Identifier: Apache-2.0
"""Which TensorRT builds what where, and the names of TensorRT's API that we count on."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest

from foreseg.engines.load import bundle_folder
from foreseg.engines.local_device import LocalDevice
from foreseg.engines.manifest import read_manifest
from foreseg.errors import InputError
from foreseg_export import tensorrt_api
from foreseg_export.targets import RTX_DEVICES, TARGETS, BuildPlan, advice, plan_build

A100 = LocalDevice(name="NVIDIA A100, 108 SMs", compute="sm80")
H100 = LocalDevice(name="NVIDIA H100, 132 SMs", compute="sm90")
BOTH = ("tensorrt", "tensorrt_rtx")


def plan(
    target: str | None,
    flavour: str | None = None,
    local: LocalDevice | None = None,
    installed: tuple[str, ...] = BOTH,
) -> BuildPlan:
    return plan_build(
        target=None if target is None else TARGETS[target],
        flavour=flavour,
        local=local,
        installed=installed,
        command="foreseg-export build b",
    )


@pytest.mark.parametrize(
    ("target", "flavour", "local", "installed", "wanted"),
    [
        (None, None, A100, BOTH, ("tensorrt", ("sm80",), A100.name)),
        (None, None, A100, ("tensorrt_rtx",), ("tensorrt_rtx", ("sm80",), A100.name)),
        (None, "tensorrt_rtx", A100, BOTH, ("tensorrt_rtx", ("sm80",), A100.name)),
        ("a100", None, A100, BOTH, ("tensorrt", ("sm80",), A100.name)),
        ("a100", None, H100, BOTH, ("tensorrt_rtx", ("sm80",), "")),
        ("a100", None, None, BOTH, ("tensorrt_rtx", ("sm80",), "")),
        ("rtx", None, None, BOTH, ("tensorrt_rtx", ("sm86", "sm89", "sm120"), "")),
        (None, None, H100, BOTH, ("tensorrt", ("sm90",), H100.name)),
    ],
)
def test_the_device_itself_gets_tensorrt_others_what_builds_ahead_of_time(
    target: str | None,
    flavour: str | None,
    local: LocalDevice | None,
    installed: tuple[str, ...],
    wanted: tuple[str, tuple[str, ...], str],
) -> None:
    got = plan(target, flavour, local, installed)
    assert (got.flavour, got.devices, got.device_name) == wanted


@pytest.mark.parametrize(
    ("target", "flavour", "local", "installed", "said"),
    [
        (None, None, None, BOTH, "--target"),
        ("jetson-orin", None, None, BOTH, "TensorRT 10.3 (JetPack 6)"),
        ("jetson-thor", None, A100, BOTH, "TensorRT 10.13 (JetPack 7)"),
        ("a100", "tensorrt", H100, BOTH, "copy the bundle to the a100"),
        ("a100", None, None, (), "pip install tensorrt-rtx"),
        (None, None, H100, ("tensorrt_rtx",), "pip install tensorrt`"),
        (None, "tensorrt_rtx", H100, BOTH, "builds only for sm75, sm80"),
        (None, "tensorrt", A100, ("tensorrt_rtx",), "the package 'tensorrt'"),
    ],
)
def test_what_is_impossible_is_refused_with_the_way_out(
    target: str | None,
    flavour: str | None,
    local: LocalDevice | None,
    installed: tuple[str, ...],
    said: str,
) -> None:
    with pytest.raises(InputError) as caught:
        plan(target, flavour, local, installed)
    assert said in str(caught.value)


def test_advice_names_only_options_that_would_change_the_bundle() -> None:
    manifest = read_manifest(bundle_folder("nano"))
    orin = TARGETS["jetson-orin"]
    assert advice(TARGETS["cpu"], manifest) is None
    text = advice(orin, manifest)
    assert text is not None
    assert text.endswith("--precision fp16 --memory-slots 4")  # nano is smaller than 512 px
    short = replace(manifest.geometry, num_recent=3)
    assert advice(orin, replace(manifest, precision="fp16", geometry=short)) is None


@pytest.mark.parametrize("flavour", ["tensorrt_rtx", "tensorrt"])
def test_the_packages_have_every_name_of_our_types(flavour: str) -> None:
    try:
        package = importlib.import_module(flavour)
    except ImportError as error:  # `tensorrt` without its libraries, too
        pytest.skip(f"{flavour} cannot be imported: {error}")
    only_rtx = {"num_compute_capabilities", "set_compute_capability", "ComputeCapability"}
    lacking = []
    for name in (
        "ITensor", "INetworkDefinition", "OnnxParser", "IOptimizationProfile", "IBuilderConfig",
        "Builder",
    ):  # fmt: skip
        protocol = getattr(tensorrt_api, name)
        lacking += [n for n in members(protocol) if not hasattr(getattr(package, name), n)]
    lacking += [n for n in members(tensorrt_api.Package) if not hasattr(package, n)]
    lacking += [n for n in ("phase_start", "phase_finish", "step_complete")
                if not hasattr(package.IProgressMonitor, n)]  # fmt: skip
    lacking += [n for n in members(tensorrt_api.Severities) if not hasattr(package.ILogger, n)]
    assert set(lacking) <= (only_rtx if flavour == "tensorrt" else set())
    assert hasattr(package.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    assert hasattr(package.MemoryPoolType, "WORKSPACE")


def members(protocol: type) -> set[str]:
    """Methods and fields that a Protocol declares itself."""
    return {n for n in vars(protocol) if not n.startswith("_")} | {
        n for n in protocol.__annotations__ if n != "__members__"
    }


def test_devices_of_rtx_are_those_of_its_enumeration() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="is not installed")
    known = trt.ComputeCapability.__members__
    assert {name.lower() for name in known if name.startswith("SM")} == set(RTX_DEVICES)


def test_a_package_that_is_absent_or_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tensorrt_api.PACKAGES, "tensorrt", "tensorrt_that_nobody_has")
    assert not tensorrt_api.is_installed("tensorrt")
    with pytest.raises(InputError, match="needs the Python package 'tensorrt_that_nobody_has'"):
        tensorrt_api.open_package("tensorrt")
    monkeypatch.setitem(tensorrt_api.PACKAGES, "tensorrt", importlib.__name__)
    with pytest.raises(InputError, match="needs TensorRT 10 or newer"):
        tensorrt_api.open_package("tensorrt")
