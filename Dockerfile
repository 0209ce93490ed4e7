# check=error=true
# How to build and run it: docs/docker.md. There is no "syntax" line: it would fetch a frontend from a registry at each build.

# CUDA comes with the locked wheels and the driver from the host, so a slim Python is all the base has to be.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS uv
# UV_LINK_MODE: a cache mount is another file system, where hard links fail
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --root-user-action=ignore uv==0.13.8

# ---- deps: every locked package in /opt/venv, and nothing of this project
FROM uv AS deps
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=requirements.lock,target=/build/requirements.lock \
    uv venv /opt/venv \
    && uv pip sync --python /opt/venv/bin/python --require-hashes /build/requirements.lock

# ---- wheel: the project as a wheel in /dist, and the folder that it runs in as /app
FROM uv AS wheel
WORKDIR /build
COPY pyproject.toml README.md LICENSE* ./
COPY src src
COPY pipelines pipelines
# the build backend has a range in pyproject.toml; exclude-newer there makes it one version
RUN --mount=type=cache,target=/root/.cache/uv \
    uv build --wheel --out-dir /dist
COPY conf /app/conf
# Kedro wants a pyproject.toml with its block and a source folder that exists; the source itself is the wheel.
# chmod: a checkout made under umask 077 must not give an image that its user cannot read.
RUN sed -n -e 's/^source_dir = .*/source_dir = "."/' -e '/^\[tool\.kedro\]/,/^$/p' pyproject.toml > /app/pyproject.toml \
    && grep -qx 'source_dir = "."' /app/pyproject.toml \
    && chmod -R go=rX /app

# ---- runtime
FROM ${PYTHON_IMAGE} AS runtime
ARG APP_UID=10001
ARG APP_GID=10001
# tini: PID 1 that passes signals on and reaps. No version: Debian keeps one a suite, so a pin breaks at its next update.
# Only /app/data belongs to the user; a new named volume takes its owner.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid "${APP_GID}" app \
    && useradd --no-log-init --no-create-home --home-dir /tmp --shell /bin/bash --uid "${APP_UID}" --gid "${APP_GID}" app \
    && install -d -o "${APP_UID}" -g "${APP_GID}" /app/data
# the large layer: it changes with requirements.lock only, whatever happens above or below it
COPY --link --from=deps /opt/venv /opt/venv
# Caches go to /tmp, the one folder that any user can write, also in a read-only container.
# USER: DVC and torch ask for the name of the user, and one given by --user has no other.
# ORT_DISABLE_TELEMETRY: onnxruntime sends usage data by default, on Linux too; it reads this when it is imported.
# NVIDIA_DRIVER_CAPABILITIES: what CUDA needs of the driver. NVIDIA_VISIBLE_DEVICES is for --gpus to set, not for an image.
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
# this layer has the project's own code, about 1 MB; uv is here for this one command only
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    --mount=type=bind,from=uv,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    uv pip install --python /opt/venv/bin/python --no-cache --no-index --no-deps /dist/*.whl \
    && python -m compileall -q /opt/venv/lib/python3*/site-packages/ltpipe /opt/venv/lib/python3*/site-packages/pipelines
COPY --link --from=wheel /app /app
WORKDIR /app
USER ${APP_UID}:${APP_GID}
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["kedro", "run"]

# last, because they differ from build to build
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="ltpipe" \
      org.opencontainers.image.description="A pipeline for long-tailed image classification" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
