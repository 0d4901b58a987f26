# SPDX-License-Identifier: Apache-2.0
# x86_64 (or aarch64), no GPU.   docker build -f docker/cpu.Dockerfile -t foreseg:cpu .
#   docker run --rm -v "$PWD:/data" foreseg:cpu run video.mp4 --query "what moves?" --out out
# Never built by us: no Docker daemon was at hand. The two pip commands and the ENTRYPOINT were run
# outside Docker on 2026-11-30 (Debian 12, Python 3.11.7, an Intel Xeon): docs/install.md.
FROM python:3.11-slim-bookworm AS wheel
COPY . /src
RUN pip wheel --no-deps -w /wheels /src

FROM python:3.11-slim-bookworm
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[cpu,nano,video,view]"
WORKDIR /data
ENTRYPOINT ["foreseg"]
CMD ["doctor"]
