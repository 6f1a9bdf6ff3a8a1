import gevent

from agentainerd import log_context


def test_each_greenlet_has_its_own():
    seen = []

    def work(name):
        log_context.begin(request_id=name)
        gevent.sleep(0)
        log_context.add(actor=name)
        seen.append(dict(log_context.current()))

    gevent.joinall([gevent.spawn(work, "a"), gevent.spawn(work, "b")])

    assert seen == [{"request_id": "a", "actor": "a"}, {"request_id": "b", "actor": "b"}]
    assert log_context.current() == {}


def test_a_new_request_begins_anew():
    def work():
        log_context.begin(request_id="1", actor="token")
        log_context.begin(request_id="2")
        return dict(log_context.current())

    assert gevent.spawn(work).get() == {"request_id": "2"}
