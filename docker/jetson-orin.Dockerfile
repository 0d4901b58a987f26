# SPDX-License-Identifier: Apache-2.0
# Jetson Orin, JetPack 6 (Ubuntu 22.04, TensorRT 10.3).   docker build -f docker/jetson-orin.Dockerfile -t foreseg:jetson-orin .   (on the device)
#   docker run --rm -it --runtime nvidia -v "$PWD:/data" foreseg:jetson-orin run video.mp4 --query "what moves?" --out out
# Never built and never run by us, no step of it: no Docker daemon and no Jetson were at hand. The
# base's tag is not checked either; take the one of your release with --build-arg BASE=...
# TensorRT comes with the base; PyPI has no onnxruntime-gpu for a Jetson, so the graphs run on the
# processor until `foreseg-export build` has made engines. Begin with `doctor`.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
# --system-site-packages: Python's TensorRT is the base's, not pip's
RUN python3 -m venv --system-site-packages /venv
ENV PATH=/venv/bin:$PATH
COPY . /src
RUN pip install --no-cache-dir "/src[cpu,nano,video,view]" && rm -rf /src
WORKDIR /data
ENTRYPOINT ["foreseg"]
CMD ["doctor"]
