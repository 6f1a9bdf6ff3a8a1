"""A data plane, or the agent behind it, as a process of its own: prints its port, and ends when its input does.

Run as `python -m tests.hostile.plane_process agent` and `python -m tests.hostile.plane_process plane AGENT_PORT`. The agent
answers `/big` with 2 MiB, and everything else with `ok`.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import tempfile  # noqa: E402

from gevent import fileobject  # noqa: E402

from agentainerd.proxy.target import Target  # noqa: E402
from tests.fakes.agents import RawAgent, answer  # noqa: E402
from tests.fakes.planes import Plane  # noqa: E402

BIG = answer(b"x" * 2 * 1024 * 1024)


def main() -> None:
    if sys.argv[1] == "agent":
        agent = RawAgent(lambda connection, request: connection.sendall(BIG if b" /big " in request[:20] else answer()))
        print(agent.address[1], flush=True)
        fileobject.FileObject(sys.stdin.buffer).read()
        return
    with tempfile.TemporaryDirectory() as folder:
        plane = Plane(f"{folder}/gateway.sock")
        plane.route.targets = [Target(("127.0.0.1", int(sys.argv[2])))]
        print(plane.address[1], flush=True)
        fileobject.FileObject(sys.stdin.buffer).read()
        plane.close()


if __name__ == "__main__":
    main()
