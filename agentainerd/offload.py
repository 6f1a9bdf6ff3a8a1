"""Work that would stop every greenlet, done in a thread: fsync of megabytes, tar, zip, hashing, slow disk folders.

The threads are gevent's own pool (ten of them, shared with name resolution). What runs there must not touch greenlets,
locks or sockets of the main thread; it gets values and returns a value.
"""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from gevent import get_hub
from gevent.monkey import get_original

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Return `function(*args)`, computed in a thread; blocks the calling greenlet only.

    What it raises is raised here. A caller that is killed meanwhile leaves at once; the function runs on to its end.
    """
    result, failure = get_hub().threadpool.apply(_attempt, (function, args))
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]  # gevent's pool is untyped: it is what `function` returned


def pause(seconds: float) -> None:
    """Sleep in a thread of the pool; for functions that `run` runs. The standard library's own sleep is the event loop's."""
    get_original("time", "sleep")(seconds)


def _attempt(function: Callable[..., T], args: tuple[object, ...]) -> tuple[T | None, BaseException | None]:
    # An exception that leaves a pool thread is printed by the hub as well: it goes back as a value instead.
    try:
        return function(*args), None
    except BaseException as exc:
        return None, exc
