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
    assert set(verdicts([(f"call {n % 4}", "same", False) for n in range(40)])) == {"fine"}


def test_three_calls_in_turns_are_a_circle_too():
    assert verdicts([(f"call {n % 3}", "same", False) for n in range(10)]) == [*["fine"] * 8, "nudge", "stuck"]


def test_a_test_that_fails_alike_after_each_edit_is_work():
    said = [each for n in range(20) for each in (("pytest", "1 failed", True), (f"edit {n}", "done", False))]

    assert set(verdicts(said)) == {"fine"}


def test_an_alternation_that_changes_is_fine_and_one_that_goes_on_after_the_nudge_is_the_end():
    assert set(verdicts([("a", "1", False), ("b", "2", False), ("a", "1", False), ("b", "3", False)] * 5)) == {"fine"}
    assert verdicts([("a", "1", False), ("b", "2", True)] * 4)[4:] == ["fine", "nudge", "stuck", "stuck"]


def test_the_same_words_three_times_with_no_call_between_them_are_a_monologue():
    repetitions = Repetitions()

    said = [repetitions.say(text).value for text in ("on and on", "on  and on\n", "on and on", "on and on")]

    assert said == ["fine", "fine", "nudge", "stuck"]


def test_words_that_differ_and_those_with_a_call_between_them_are_no_monologue():
    repetitions = Repetitions()
    said = [repetitions.say(text) for text in ("a", "a", "b", "a", "a")]
    said.append(repetitions.add("ls", "x", is_error=False))
    said += [repetitions.say("a") for _ in range(2)]

    assert set(said) == {Verdict.FINE}


def test_who_does_something_else_after_the_nudge_goes_on():
    said = verdicts([*[("ls", "a", False)] * 4, ("cat", "b", False), ("ls", "a", False)])

    assert said[-2:] == ["fine", "fine"]
    assert Verdict.STUCK.value not in said
