"""One verb on several agents: each gets its result line, a failure does not stop the rest, the exit code tells."""

from collections.abc import Callable, Sequence
from typing import Any

from agentainerctl import exits, output
from agentainerctl.session import Session
from agentainerd.errors import AgentainerError

Result = dict[str, Any]
Line = Callable[[str, Result], str]


def each(session: Session, refs: Sequence[str], act: Callable[[str], Result], line: Line) -> None:
    """Run `act` on every ref and print what came of it; sets the session's exit code.

    `act` returns at least `id` and `name`. `line` gives the result line for people, from the ref and the result. Errors of the
    connection stop the loop: the next one would meet the same. Exit code: the only error's, the common one of all, FAILED
    where they differ, PARTLY_DONE where some went well.
    """
    results: list[Result] = []
    codes: list[int] = []
    for ref in dict.fromkeys(refs):
        try:
            result = act(ref)
        except AgentainerError as error:
            codes.append(session.report(error))
            if codes[-1] in (exits.UNREACHABLE, exits.DENIED):
                break
            continue
        results.append(result)
        if not session.is_machine:
            output.say(_text(session, result, line(ref, result)))
    if session.is_machine and (results or not codes):
        output.machine(results, session.output)
    session.exit_code = _exit_code(codes, bool(results))


def _text(session: Session, result: Result, line: str) -> str:
    if session.is_quiet:
        return output.plain(result.get("id", ""))
    if session.output == "name":
        return output.plain(result.get("name", ""))
    return line


def _exit_code(codes: Sequence[int], some_done: bool) -> int:
    if not codes:
        return exits.OK
    if some_done:
        return exits.PARTLY_DONE
    return codes[0] if len(set(codes)) == 1 else exits.FAILED
