# The daemon in a container: docker-compose.yml has what it needs to be given, docs/operations.md what is different there.
# Any Debian or Ubuntu with Python 3.11 or newer will do as a base. Where PyPI can't be reached, lay the wheels that are needed
# (pip wheel -w .wheels '.[fast,embedded]' setuptools wheel mypy) into .wheels, and build with PIP_NO_INDEX=1.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    ca-certificates python3 python3-venv python3-dev gcc libc6-dev
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS=/src/.wheels
ARG COMPILE=1
COPY . /src
RUN mkdir -p /src/.wheels && python3 -m venv /build && /build/bin/pip install -q 'setuptools>=77' wheel mypy && \
    AGENTAINER_COMPILE=${COMPILE} /build/bin/pip wheel -q --no-deps --no-build-isolation -w /dist /src && \
    python3 -m venv --without-pip /opt/agentainer && \
    /build/bin/pip --python /opt/agentainer/bin/python install -q "$(echo /dist/*.whl)[fast,embedded]"

FROM ${BASE_IMAGE}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/agentainer /opt/agentainer
RUN install -d -m 0700 /var/lib/agentainer && ln -s /opt/agentainer/bin/agentainerctl /opt/agentainer/bin/agentainer /opt/agentainer/bin/agentainerd /usr/local/bin/
# A container's loopback is nobody else's: which clients reach the port is decided where it is published.
ENV AGENTAINER_SERVER_HOST=0.0.0.0
VOLUME /var/lib/agentainer
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["agentainerctl", "system", "ping", "-q"]
ENTRYPOINT ["/opt/agentainer/bin/agentainerd"]
