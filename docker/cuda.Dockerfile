# SPDX-License-Identifier: Apache-2.0
# x86_64 with an NVIDIA GPU.   docker build -f docker/cuda.Dockerfile -t foreseg:cuda .
#   docker run --rm --gpus all -v "$PWD:/data" foreseg:cuda run video.mp4 --set tracker.backend=cuda --query "what moves?" --out out
# Never built and never run by us, no step of it: no Docker daemon and no GPU were at hand. The base's
# tag is not checked either. CUDA 13, because PyPI's newest onnxruntime-gpu asks for it (pip's
# --dry-run with its extra cudnn names nvidia-cudnn-cu13, 2026-11-30). Begin with `doctor`.
ARG BASE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04
FROM python:3.11-slim-bookworm AS wheel
COPY . /src
RUN pip wheel --no-deps -w /wheels /src

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY --from=wheel /wheels /wheels
# cuda and cpu exclude each other: both install the folder onnxruntime/
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[cuda,nano,video,view]"
WORKDIR /data
ENTRYPOINT ["foreseg"]
CMD ["doctor"]
