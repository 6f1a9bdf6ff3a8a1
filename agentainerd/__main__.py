"""The entry point of the daemon: patches the standard library for gevent before anything else is imported."""

from gevent import monkey

monkey.patch_all()

from agentainerd.command import main  # noqa: E402 - only now: what it imports must see the patched library

__all__ = ["main"]

if __name__ == "__main__":
    main()
