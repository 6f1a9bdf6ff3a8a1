"""What the watchdog is fed for."""

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from agentainerd import watchdog
from agentainerd.watchdog import AcceptSign, CommitSign, Watchdog


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(watchdog.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Manager:
    def __init__(self):
        self.fed = 0
        self.told = []

    def feed(self):
        self.fed += 1


def test_it_is_fed_while_every_sign_is_there_and_says_once_which_is_not(clock, caplog):
    manager, wrong = Manager(), {"journal": ""}
    dog = Watchdog(30.0, manager.feed, manager.told.append, {"accept": lambda: "", "journal": lambda: wrong["journal"]})

    def run():
        done = dog.run_once(0.0)
        clock.now += dog.interval_s
        return done

    assert (run(), run(), manager.fed) == (1, 1, 2)
    wrong["journal"] = "a batch has waited"
    assert (run(), run(), manager.fed) == (0, 0, 2)
    assert manager.told == ["wedged: journal: a batch has waited"]
    assert caplog.text.count("the watchdog is not fed while this lasts: journal: a batch has waited") == 1
    wrong["journal"] = ""
    assert (run(), manager.fed, manager.told[-1]) == (1, 3, "well again")


def test_a_loop_that_comes_late_is_not_fed_and_one_that_is_in_time_again_is(clock):
    manager = Manager()
    dog = Watchdog(30.0, manager.feed, manager.told.append, {})
    assert dog.run_once(0.0)

    clock.now += dog.interval_s + watchdog.MAX_LAG_S - 0.01
    assert dog.run_once(0.0)
    clock.now += dog.interval_s + watchdog.MAX_LAG_S
    assert not dog.run_once(0.0)
    assert manager.told == ["wedged: event loop: it was 2.0 s late"]
    clock.now += dog.interval_s
    assert dog.run_once(0.0)


@pytest.mark.parametrize(("timeout_s", "interval_s"), [(30.0, 5.0), (3.0, 0.5), (600.0, 5.0)])
def test_it_looks_several_times_in_the_time_that_it_has(timeout_s, interval_s):
    assert Watchdog(timeout_s, lambda: None, lambda text: None, {}).interval_s == interval_s


class Journal:
    def __init__(self):
        self.in_flight, self.probes, self.up_s = 0, 0, 1000.0

    def probe(self):
        self.probes += 1

    def sign(self, *, ours=True):
        return CommitSign(lambda: self.in_flight, self.probe, (lambda: self.up_s) if ours else None)


def test_an_idle_journal_is_probed_and_a_busy_one_is_not(clock):
    journal = Journal()
    sign = journal.sign()

    assert (sign(), journal.probes) == ("", 1)
    journal.in_flight = 7
    assert (sign(), journal.probes) == ("", 1)


def test_a_batch_that_is_not_answered_is_a_sign_and_batches_that_go_on_are_not(clock):
    journal = Journal()
    sign = journal.sign()
    for number in range(1, 10):
        journal.in_flight = number
        assert sign() == ""
        clock.now += watchdog.MAX_COMMIT_S - 1

    clock.now += 1
    assert sign() == "a batch has waited for 5 s"
    journal.in_flight = 0
    assert sign() == ""
    journal.in_flight = 10
    assert sign() == ""


def test_a_redis_that_is_gone_or_not_ours_is_not_cured_by_another_start(clock):
    journal = Journal()
    journal.in_flight = 7
    ours, theirs = journal.sign(), journal.sign(ours=False)
    assert (ours(), theirs()) == ("", "")
    clock.now += 100

    journal.up_s = 0.0
    assert (ours(), theirs()) == ("", "")
    journal.up_s = 4.9  # it has been started again and reads its files
    assert ours() == ""
    journal.up_s = 6.0
    assert ours() == "a batch has waited for 6 s"


@pytest.fixture
def listener():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(16)
        yield made


@pytest.mark.parametrize("says", [b"HTTP/1.1 404 Not Found\r\n\r\n", b""])
@pytest.mark.parametrize("family", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_door_that_is_answered_or_shut_is_a_living_one(says, family):
    heard = []

    def serve(connection, _):
        heard.append(connection.recv(1000) if says else b"")
        connection.sendall(says)
        connection.close()

    server = StreamServer((family, 0), serve)
    server.start()
    try:
        assert AcceptSign([(family, server.server_port)], lambda: False)() == ""
    finally:
        server.stop()
    assert len(heard) == 1


def test_a_door_that_nobody_opens_is_a_sign(listener, monkeypatch):
    monkeypatch.setattr(watchdog, "KNOCK_TIMEOUT_S", 0.1)
    address = listener.getsockname()

    assert AcceptSign([address], lambda: False)() == f"127.0.0.1 port {address[1]} does not accept: timed out"
    assert AcceptSign([address], lambda: True)() == ""


def test_a_daemon_that_fills_up_while_it_is_knocked_at_is_busy(listener, monkeypatch):
    monkeypatch.setattr(watchdog, "KNOCK_TIMEOUT_S", 0.1)
    answers = iter([False, True])

    assert AcceptSign([listener.getsockname()], lambda: next(answers))() == ""


def test_a_door_that_is_gone_is_a_sign():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))

        assert "Connection refused" in AcceptSign([probe.getsockname()], lambda: False)()

    assert gevent.get_hub() is not None
