from agentainer_runtime.stuck import Repetitions, Verdict


def verdicts(calls):
    repetitions = Repetitions()
    return [repetitions.add(action, result, is_error=is_error).value for action, result, is_error in calls]


def test_the_same_call_with_the_same_result_four_times_is_said_and_a_fifth_is_the_end():
    assert verdicts([("ls", "a", False)] * 5) == ["fine", "fine", "fine", "nudge", "stuck"]


def test_a_call_that_fails_three_times_is_enough():
    assert verdicts([("ls x", "no", True), ("ls x", "none", True), ("ls x", "no", True)]) == ["fine", "fine", "nudge"]


def test_two_calls_in_turns_are_a_circle():
    assert verdicts([("a", "1", False), ("b", "2", False)] * 3) == ["fine"] * 5 + ["nudge"]


def test_what_moves_on_is_fine():
    assert set(verdicts([("poll", str(n), False) for n in range(20)])) == {"fine"}
    assert set(verdicts([(f"call {n % 3}", "same", False) for n in range(20)])) == {"fine"}


def test_who_does_something_else_after_the_nudge_goes_on():
    said = verdicts([*[("ls", "a", False)] * 4, ("cat", "b", False), ("ls", "a", False)])

    assert said[-2:] == ["fine", "fine"]
    assert Verdict.STUCK.value not in said
