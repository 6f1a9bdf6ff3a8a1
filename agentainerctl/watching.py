"""Looking at a run or a job until it ends: what is shown of it, and what Ctrl-C means meanwhile."""

import sys
from collections.abc import Callable, Iterator

import click

from agentainerctl import output, runs
from agentainerctl.client import path_of
from agentainerctl.console import Console
from agentainerctl.progress import Ticking
from agentainerctl.runstream import PATHS, Record, answer, call_again, cancel, follow_run, run_path
from agentainerctl.session import Session
from agentainerctl.transcript import Piece, Transcript
from agentainerd.errors import AgentainerError


class View:
    """How a run is shown. With -q its id; else in a `form`.

    - "stream": what the agent says and does, as it comes, and how it went; to programs each event as a line of JSON
    - "answer": only the answer, when it has ended
    - "part": as "stream", of a conversation, where nothing is said of what went well
    - "": "stream" for people, a document for programs

    `noun`: "run" or "job", what people call it.
    """

    def __init__(self, session: Session, *, form: str = "", is_full: bool = False, noun: str = "run") -> None:
        self.noun = noun
        self._session = session
        self._form = form
        self._is_lines = session.is_machine and form == "stream"
        self._is_text = not session.is_machine and not session.is_quiet
        width = output.terminal_width(sys.stderr) - 1 if sys.stderr.isatty() else 0
        self.console = Console()
        self._transcript = Transcript(is_full=is_full, has_steps=noun == "job", width=width)
        self._answer: list[Piece] = []
        self._agent = "the agent" if noun == "run" else "the job"

    def begin(self, run: Record) -> None:
        """Show that there is a run."""
        place = f"in {run.get('image', '')}"
        if self.noun == "run":
            self._agent = output.plain(run.get("agent") or "the agent")
            place = f"on {self._agent}"
        if self._session.is_quiet and not self._session.is_machine:
            output.say(output.plain(run["id"]))
            sys.stdout.flush()
        elif self._is_text and self._form != "part":
            self.note(f"{self.noun} {output.plain(run['id'])} {output.plain(place)}")
        starts_at = run.get("starts_at") or run.get("after")
        if self._session.has_progress and starts_at:
            self.note(f"it begins at {output.plain(starts_at)}")
        elif self._session.has_progress and run.get("status") in ("queued", "starting"):
            self._say_what_it_waits_for(run)

    def show(self, event: Record) -> None:
        """Show an event, the next one."""
        if self._is_lines:
            output.json_line(event)
        elif self._is_text:
            pieces = self._transcript.feed(event.get("event"))
            if self._form == "answer":
                self._answer += [piece for piece in pieces if piece.is_answer]
            else:
                self.console.write(pieces)

    def awaited(self, events: Iterator[Record]) -> Iterator[Record]:
        """Return `events`; a person sees meanwhile that they are waited for."""
        if not self._is_text or not output.is_terminal(sys.stderr):
            yield from events
            return
        while True:
            with Ticking(lambda seconds: self.console.wait(f"{self._agent} is working", seconds)):
                event = next(events, None)
            if event is None:
                return
            yield event

    def pause(self) -> None:
        """Leave the terminal to something else."""
        Ticking.stop()
        self.console.end_line()

    def note(self, text: str) -> None:
        """Tell a person something that is not of the run."""
        if self._session.has_progress:
            self.console.note(f"--- {text} ---")

    def end(self, run: Record) -> None:
        """Show how the run ended."""
        self.console.write(self._answer)
        self.console.end_line()
        if self._session.is_machine and not self._is_lines:
            output.machine(run, self._session.output)
        elif self._is_text and run.get("status") == "completed" and self._form != "part":
            self.note(runs.summary(run))

    def _say_what_it_waits_for(self, run: Record) -> None:
        """Tell of its place in the queue, or of an agent that does not run and that nothing but a person will start."""
        if self.noun == "job":
            if run.get("position"):
                self.note(f"it waits for its turn, as number {run['position']} of the queue")
            return
        if run.get("kind") == "job":
            return  # its agent is made and started for it
        try:
            agent = self._session.client.get(path_of("agents", str(run["agent_id"])))
        except AgentainerError:
            return  # what becomes of the run tells more
        status = output.plain(agent.get("status", ""))
        if status == "running" or agent.get("reason") == "idle":
            return
        verb = "resume" if status == "paused" else "start"
        self.note(f"{self._agent} is {status}; the run waits for it: agentainerctl {verb} {self._agent}")


def watch(
    session: Session,
    run: Record,
    view: View,
    *,
    after: int = 0,
    wants_cancel: Callable[[], bool] | None = None,
    can_answer: bool = True,
) -> Record:
    """Show a run until it ends, and return it as it then is.

    A person is asked what the agent asks for; where there is none, nobody answers, or not `can_answer`, it is returned as it
    waits.

    On the first Ctrl-C `wants_cancel` says whether to cancel it (a person is asked, where nothing else is given); else, and on
    the second one, it is left running.

    Raises:
        KeyboardInterrupt: it was left running.
        AgentainerError: as `follow_run`.
    """
    asks = wants_cancel or ((lambda: asks_to_cancel(view.noun)) if session.is_interactive else None)
    reached = after
    while True:
        try:
            for event in view.awaited(_events(session, run, view, reached)):
                reached = event["seq"]
                view.show(event)
            found = dict(call_again(session.client, "GET", PATHS[view.noun](run["id"]))["data"])
            if found["status"] in runs.FINAL:
                return found
            if found["status"] == runs.WAITING and not (can_answer and _answered(session, found, view)):
                return found
            continue
        except KeyboardInterrupt:
            view.pause()
            if not asks or not asks():
                view.note(f"the {view.noun} goes on: agentainerctl runs attach {run['id']}")
                raise
            asks = None
        cancel(session.client, run["id"], noun=view.noun)


def ask(session: Session, run: Record) -> Record:
    """Have a person answer what a run waits for, again where that is no answer; return the run as it goes on.

    Raises:
        click.Abort: they do not. AgentainerError: it does not wait any more, and what `Client.call` raises.
    """
    interrupts = run.get("interrupts") or []
    if not interrupts:
        raise AgentainerError(
            f"run {run['id']} does not wait for an answer: it is {run['status']}", code="RUN_NOT_WAITING"
        )
    while True:
        entries = []
        for one, question in zip(interrupts, runs.questions(run), strict=True):
            if len(interrupts) > 1:
                output.note(output.plain_text(question))
            wanted = runs.expected(one)
            text = click.prompt(f"Your answer{f' ({output.plain(wanted)})' if wanted else ''}", err=True)
            entries.append({"interruptId": one["id"], "text": text})
        try:
            return answer(session.client, str(run["id"]), {"resume": entries})
        except AgentainerError as error:
            if error.code != "INVALID_PARAMETER":
                raise
            session.report(error)


def _answered(session: Session, run: Record, view: View) -> bool:
    """Ask a person; return whether they answered. One who was faster is as good. `run`: it, or the job that it is."""
    if not session.is_interactive or session.is_machine:
        return False
    view.pause()
    try:
        ask(session, run if "interrupts" in run else dict(session.client.get(run_path(str(run["id"])))))
    except click.Abort:
        output.note("")
        return False
    except AgentainerError as error:
        if error.code != "RUN_NOT_WAITING":
            raise
    return True


def conclude(session: Session, run: Record) -> None:
    """Say how a run ended, or what it waits for, where it did not complete; the exit code tells of it too."""
    error = runs.failure(run)
    if error:
        session.exit_code = session.report(error)


def asks_to_cancel(noun: str) -> bool:
    """Ask a person; no answer, and Ctrl-C again, are no."""
    output.note("")  # after the ^C that the terminal shows
    try:
        return click.confirm(f"Cancel the {noun}? Otherwise it goes on without you", err=True)
    except click.Abort:
        output.note("")
        return False


def _events(session: Session, run: Record, view: View, after: int) -> Iterator[Record]:
    def say_so() -> None:
        view.note("the connection to agentainerd broke; reconnecting")

    return follow_run(session.client, run["id"], after=after, on_break=say_so)
