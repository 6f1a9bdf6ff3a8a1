"""`chat`."""

import os
from typing import Any

import click

from agentainerctl import exits, output, runs, sessions
from agentainerctl.client import path_of
from agentainerctl.lines import Lines
from agentainerctl.options import Command
from agentainerctl.prompts import read_image
from agentainerctl.refs import with_agent
from agentainerctl.runstream import Record, answer, call_again, run_path
from agentainerctl.session import Session
from agentainerctl.sessions import session_path
from agentainerctl.watching import View, conclude, watch
from agentainerd.errors import AgentainerError, InvalidParameter

_HELP = """\
/image FILE   show it an image with what you say next
/history      what was said so far
/new          begin another conversation
/session      the id of this one
/exit         leave, as Ctrl-D does; the conversation is kept

More lines: a backslash at the end of one, Alt-Enter, or pasting them; or a text
between two lines of three quotes. Ctrl-C ends the answer that is under way.
A line that begins with a space is not kept for the arrow keys."""
_SHOWN = 4  # messages of a conversation that is gone on with
_MAX_NAME = 60


@click.command(
    "chat",
    cls=Command,
    names="agents",
    examples=(
        "agentainerctl chat web",
        "agentainerctl chat --resume web",
        "agentainerctl chat --session 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11 web",
    ),
)
@click.argument("ref", metavar="AGENT")
@click.option("-s", "--session", "session_id", metavar="SESSION", help="Go on with this conversation.")
@click.option("-r", "--resume", is_flag=True, help="Go on with the newest conversation with the agent.")
@click.option("--model", metavar="MODEL", help="Another model than the agent's.")
@click.option(
    "--full", "is_full", is_flag=True, help="Show thinking and steps too, and results of tools and edits whole."
)
@click.pass_obj
def chat(session: Session, ref: str, session_id: str | None, resume: bool, model: str | None, is_full: bool) -> None:
    """Talk to an agent, which remembers what was said. Without a terminal each line of standard input is something said.

    The conversation is a session of the daemon, and can be gone on with later, here or elsewhere. /help tells of what
    can be typed beside what you want to say.
    """
    agent: Record = with_agent(session.client, ref, lambda known: session.client.get(path_of("agents", known)))
    talk = _Talk(session, agent, model=model, is_full=is_full)
    talk.greet()
    if resume and not session_id:
        session_id = talk.newest()
    if session_id:
        talk.resume(session_id)
    talk.run()


class _Talk:
    """One agent, one person, and the session that they have, "" before anything was said."""

    def __init__(self, session: Session, agent: Record, *, model: str | None, is_full: bool) -> None:
        self._session = session
        self._agent = agent
        self._name = output.plain(agent["name"])
        self._model = model
        self._is_full = is_full
        self._id = ""
        self._images: list[dict[str, str]] = []
        self._waiting: Record = {}  # the run that waits for an answer, which is what is said next
        self._lines = Lines(f"{self._name}> ", "... ", os.environ)

    def newest(self) -> str:
        """Return the id of the newest session with the agent."""
        query = {"agent_id": self._agent["id"], "limit": 1}
        found = self._session.client.call("GET", session_path(), query=query)["sessions"]
        if not found:
            raise AgentainerError(
                f"there is no conversation with {self._name} yet",
                code="SESSION_NOT_FOUND",
                hint=f"agentainerctl chat {self._name}",
            )
        return str(found[0]["session_id"])

    def resume(self, session_id: str) -> None:
        """Go on with a session: show its end, and what is still being done for it."""
        found = sessions.messages(self._session.client, session_id, _SHOWN)
        self._id = session_id
        if self._lines.is_terminal:
            sessions.show_messages(found, self._name)
        query = {"session_id": session_id, "limit": 1}
        last = self._session.client.call("GET", run_path(), query=query).get("data") or []
        if last and last[0]["status"] not in runs.FINAL:
            self._watch(last[0])

    def greet(self) -> None:
        """Tell a person what this is."""
        if self._lines.is_terminal:
            output.note(f"Talking to {self._name}. /help tells what can be typed; Ctrl-D leaves.")

    def run(self) -> None:
        """Read and answer until there is no more."""
        while True:
            try:
                text = self._read()
                if text.strip() in ("/exit", "/quit"):
                    break
                self._take(text)
            except EOFError:
                if self._lines.is_terminal:
                    output.note("")
                elif self._waiting:
                    conclude(self._session, self._waiting)
                break
            except AgentainerError as error:
                code = self._session.report(error)
                if not self._lines.is_terminal:
                    self._session.exit_code = code
                    return
        self._leave()

    def _read(self) -> str:
        try:
            return self._lines.read()
        except KeyboardInterrupt:
            if not self._lines.is_terminal:
                raise
            output.note("")
            return ""  # the line that was begun is forgotten

    def _take(self, text: str) -> None:
        command, _, rest = text.strip().partition(" ")
        commands = {"/help": self._help, "/history": self._history, "/new": self._new, "/session": self._say_id}
        if command == "/image":
            self._take_image(rest.strip())
        elif command in commands and not rest:
            commands[command]()
        elif text.strip() or self._images:
            self._say(text)

    def _take_image(self, source: str) -> None:
        if not source:
            raise InvalidParameter("/image", "names no file", hint="/image FILE, and then what you want to say")
        self._images.append(read_image(os.path.expanduser(source)))
        if self._lines.is_terminal:
            output.note(f"It goes with what you say next ({len(self._images)}).")

    def _say(self, text: str) -> None:
        client = self._session.client
        if self._waiting:
            after = int(self._waiting["last_seq"])
            self._watch(answer(client, str(self._waiting["id"]), {"text": text}), after=after)
            return
        if not self._id:
            name = output.shorten(" ".join(text.split()), _MAX_NAME)
            made = client.call("POST", session_path(), body={"agent_id": self._agent["id"], "name": name})
            self._id = str(made["session_id"])
        body: dict[str, Any] = {"agent_id": self._agent["id"], "session_id": self._id, "input": text}
        if self._images:
            body["media"], self._images = self._images, []
        if self._model:
            body["model"] = self._model
        self._watch(call_again(client, "POST", run_path(), body=body, key=os.urandom(16).hex())["data"])

    def _watch(self, run: Record, after: int = 0) -> None:
        view = View(self._session, form="part", is_full=self._is_full)
        view.begin(run)
        with self._lines.unseen():
            ended = watch(self._session, run, view, after=after, wants_cancel=lambda: True, can_answer=False)
        view.end(ended)
        self._waiting = ended if ended["status"] == runs.WAITING else {}
        if self._waiting:
            if self._lines.is_terminal:
                output.note("It waits for your answer.")
            return
        conclude(self._session, ended)
        if self._lines.is_terminal:
            self._session.exit_code = exits.OK  # it was told, and the conversation goes on

    def _help(self) -> None:
        output.note(_HELP)

    def _history(self) -> None:
        if self._id:
            sessions.show_messages(sessions.messages(self._session.client, self._id), self._name, is_full=self._is_full)

    def _new(self) -> None:
        self._leave()
        self._id, self._waiting = "", {}

    def _say_id(self) -> None:
        output.note(self._id or "Nothing was said yet.")

    def _leave(self) -> None:
        if self._id and self._lines.is_terminal:
            output.note(f"To go on with it: agentainerctl chat --session {output.plain(self._id)} {self._name}")
