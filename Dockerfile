# check=error=true
# How to build and run it: docs/docker.md. There is no "syntax" line: it would fetch a frontend from a registry at each build.

# CUDA comes with the locked wheels, and its driver with the host, so a slim Python is enough as base image.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS uv
# UV_LINK_MODE: a cache mount is another file system, where hard links fail
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --root-user-action=ignore uv==0.13.8

# ---- deps: install every locked package into /opt/venv, and nothing of this project
FROM uv AS deps
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=requirements.lock,target=/build/requirements.lock \
    uv venv /opt/venv \
    && uv pip sync --python /opt/venv/bin/python --require-hashes /build/requirements.lock

# ---- wheel: build the project's wheel in /dist, and prepare /app, the folder in which it runs
FROM uv AS wheel
WORKDIR /build
COPY pyproject.toml README.md LICENSE* ./
COPY src src
COPY pipelines pipelines
# pyproject.toml allows a range of versions of the build backend; its exclude-newer makes the choice reproducible
RUN --mount=type=cache,target=/root/.cache/uv \
    uv build --wheel --out-dir /dist
COPY conf /app/conf
# Kedro needs a pyproject.toml with its block and a source folder that exists; the source itself is in the wheel.
# chmod: with a checkout made under umask 077, the image's user could not read the files.
RUN sed -n -e 's/^source_dir = .*/source_dir = "."/' -e '/^\[tool\.kedro\]/,/^$/p' pyproject.toml > /app/pyproject.toml \
    && grep -qx 'source_dir = "."' /app/pyproject.toml \
    && chmod -R go=rX /app

# ---- serve-deps: install what predicting needs into /opt/venv: no torch, no CUDA, no Kedro, no DVC
FROM uv AS serve-deps
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=requirements.serve.lock,target=/build/requirements.serve.lock \
    uv venv /opt/venv \
    && uv pip sync --python /opt/venv/bin/python --require-hashes /build/requirements.serve.lock

# ---- serve: `docker build --target serve`; predicts with a mounted model, and nothing else
FROM ${PYTHON_IMAGE} AS serve
ARG APP_UID=10001
ARG APP_GID=10001
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid "${APP_GID}" app \
    && useradd --no-log-init --no-create-home --home-dir /tmp --uid "${APP_UID}" --gid "${APP_GID}" app
COPY --link --from=serve-deps /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,from=uv,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    uv pip install --python /opt/venv/bin/python --no-cache --no-index --no-deps /dist/*.whl \
    && python -m compileall -q /opt/venv/lib/python3*/site-packages/ltpipe
USER ${APP_UID}:${APP_GID}
ENTRYPOINT ["/usr/bin/tini", "--", "ltpipe"]
CMD ["predict", "--help"]

# ---- runtime: the last stage is what `docker build` without --target makes
FROM ${PYTHON_IMAGE} AS runtime
ARG APP_UID=10001
ARG APP_GID=10001
# tini: as PID 1 it forwards signals and reaps zombies. It is not pinned: Debian has one version at a time, so a pin
# breaks at the next update. Only /app/data belongs to the user; a new named volume gets the same owner.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid "${APP_GID}" app \
    && useradd --no-log-init --no-create-home --home-dir /tmp --shell /bin/bash --uid "${APP_UID}" --gid "${APP_GID}" app \
    && install -d -o "${APP_UID}" -g "${APP_GID}" /app/data
# The large layer. With --link it changes only with requirements.lock, not with the layers before it.
COPY --link --from=deps /opt/venv /opt/venv
# Caches go to /tmp, the only folder that any user can write to, also in a read-only container.
# USER: DVC and torch ask for the user's name, and a number set by --user has none.
# ORT_DISABLE_TELEMETRY: onnxruntime sends usage data by default, on Linux too; it reads this when it is imported.
# NVIDIA_DRIVER_CAPABILITIES: what CUDA needs of the driver. NVIDIA_VISIBLE_DEVICES is set by --gpus, not by an image.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    ORT_DISABLE_TELEMETRY=1 \
    USER=app \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    DVC_SITE_CACHE_DIR=/tmp/cache/dvc \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# This layer holds the project's code, about 1 MB. uv is mounted for this command, so that it is not in the image.
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,from=uv,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    uv pip install --python /opt/venv/bin/python --no-cache --no-index --no-deps /dist/*.whl \
    && python -m compileall -q /opt/venv/lib/python3*/site-packages/ltpipe /opt/venv/lib/python3*/site-packages/pipelines
COPY --link --from=wheel /app /app
WORKDIR /app
USER ${APP_UID}:${APP_GID}
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["kedro", "run"]

# last, because they differ from build to build, and a changed layer rebuilds those after it
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="ltpipe" \
      org.opencontainers.image.description="A pipeline for long-tailed image classification" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
