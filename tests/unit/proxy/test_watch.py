"""Deadlines without timers."""

import socket

import gevent
import pytest

from agentainerd.proxy.watch import NEVER, Cause, Sweeper


@pytest.fixture
def waiting(plane, eventually):
    """A connection, which is what waits, watched by a sweeper of its own; and the client's side of it."""
    with socket.create_connection(plane.address) as client:
        eventually(lambda: plane.data_plane.connections == 1)
        sweeper = Sweeper()
        [connection] = plane.data_plane.sweeper._watched
        sweeper.add(connection)
        yield sweeper, connection, client


def test_what_is_overdue_is_ended(waiting):
    sweeper, connection, client = waiting
    connection.deadline, connection.overdue = sweeper.now - 1, Cause.IDLE

    sweeper.sweep()

    assert connection.cause is Cause.IDLE
    assert connection.deadline == NEVER
    assert client.recv(1) == b""


def test_what_is_not_overdue_goes_on(waiting):
    sweeper, connection, _ = waiting
    connection.deadline = sweeper.now + 60

    sweeper.sweep()

    assert connection.cause is Cause.NONE
    assert len(sweeper) == 1
    sweeper.remove(connection)
    assert len(sweeper) == 0


def test_many_that_are_overdue_at_once_do_not_keep_the_others_waiting(plane, eventually):
    """Slow clients come in thousands, and to end one costs as much as a request."""
    overdue = [plane.connect() for _ in range(200)]
    eventually(lambda: plane.data_plane.connections == 200)
    for connection in plane.data_plane.sweeper._watched:
        connection.deadline, connection.overdue = 0.0, Cause.IDLE

    asking = gevent.spawn(lambda: (plane.ask().status, plane.data_plane.connections))
    gevent.sleep(0)  # it is connecting
    plane.data_plane.sweeper.sweep()
    status, open_then = asking.get(timeout=5)

    assert status == 200
    assert open_then > 20
    eventually(lambda: plane.data_plane.connections == 0)
    for client in overdue:
        client.close()
