# The runtime image with a desktop, built by `agentainerctl runtime build --desktop`: Debian's X server, window manager, VNC server and
# noVNC, and JupyterLab from PyPI, or from wheels/ of the build context where PIP_NO_INDEX is 1.
ARG RUNTIME_IMAGE=agentainer-runtime:latest

FROM ${RUNTIME_IMAGE} AS jupyter
USER root
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-venv
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS=/wheels
COPY pyproject.toml wheels* /wheels/
RUN python3 -m venv --without-pip /opt/jupyter && python3 -m venv /build && python3 -c 'import tomllib; \
    project = tomllib.load(open("/wheels/pyproject.toml", "rb")); print(*project["project"]["optional-dependencies"]["desktop"], sep="\n")' \
    >/wheels/wanted && /build/bin/pip --python /opt/jupyter/bin/python install -q -r /wheels/wanted
# Nobody is asked whether the news may be fetched.
RUN mkdir -p /opt/jupyter/etc/jupyter/labconfig && \
    echo '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}' >/opt/jupyter/etc/jupyter/labconfig/page_config.json

FROM ${RUNTIME_IMAGE}
USER root
# Of noVNC only its pages: the package wants Node.js and numpy for a server of its own, which the runtime is itself.
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    openbox x11-xserver-utils x11vnc xterm xvfb && \
    cd /tmp && apt-get download -q novnc && dpkg-deb -x novnc_*.deb novnc && mv novnc/usr/share/novnc /usr/share/novnc && \
    rm -rf novnc* /var/lib/apt/lists/*
ENV AGENT_SCREEN=1280x800 DISPLAY=:1
LABEL agentainer.ports="gui=6080 jupyter=8888"
USER agent
EXPOSE 8080
COPY --from=jupyter /opt/jupyter /opt/jupyter
