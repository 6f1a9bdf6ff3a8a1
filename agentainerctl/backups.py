"""Backups as a person sees them: long work while it goes on, one backup, and what was left out."""

import os
import sys
from contextlib import closing, nullcontext
from typing import Any

from agentainerctl import exits, output
from agentainerctl.client import ChunkedBody, path_of
from agentainerctl.failures import StreamBroken
from agentainerctl.output import Column, plain
from agentainerctl.progress import Region, bar
from agentainerctl.session import Session
from agentainerd.errors import Conflict, InvalidParameter
from agentainerd.units import format_size

Backup = dict[str, Any]
COLUMNS = (
    Column("ID"),
    Column("NAME", can_shrink=True),
    Column("AGENTS", can_shrink=True),
    Column("SIZE"),
    Column("CREATED"),
)
_VARIABLE = "AGENTAINER_BACKUP_PASSPHRASE"
_SHOWN_OMISSIONS = 20
_PIECE_BYTES = 256 * 1024


def follow(session: Session, title: str, method: str, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401
    """Call something that takes long, show how far it is, and return its result; options are those of `Client.stream`.

    Raises:
        AgentainerError: as `Client.stream`; what the daemon said went wrong.
    """
    region = Region(is_silent=not session.has_progress)
    stream = session.client.stream(method, path, **request)
    try:
        with closing(stream) as entries:  # type: ignore[type-var] # a generator has close()
            for entry in entries:
                if isinstance(entry.get("result"), dict):
                    return dict(entry["result"])
                region.show([f"{title}: {_progress(entry.get('progress') or {})}"])
    finally:
        region.clear()
    raise StreamBroken("agentainerd stopped before it was done", hint="agentainerctl system ping")


def save(session: Session, ref: str, file: str, *, is_forced: bool) -> int:
    """Write a backup to `file` ("-": stdout), whole or not at all; return its size.

    Raises:
        Conflict: the file is there (code FILE_EXISTS). OSError: it can't be written. AgentainerError: as `Client.save`.
    """
    path = path_of("backups", ref, "archive")
    if file == "-":
        return session.client.save(path, lambda piece, _: sys.stdout.buffer.write(piece))
    if os.path.lexists(file) and not is_forced:
        raise Conflict(f"{file} is there already", code="FILE_EXISTS", hint="add --force to write over it")
    region = Region(is_silent=not session.has_progress)
    partial, done = f"{file}.partial", 0
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:

            def write(piece: bytes, total: int) -> None:
                nonlocal done
                out.write(piece)
                done += len(piece)
                region.show([f"Exporting {ref}: {bar(done, total)} {format_size(done)} of {format_size(total)}"])

            size = session.client.save(path, write)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)
    except BaseException:
        os.unlink(partial)
        raise
    finally:
        region.clear()
    return size


def load(session: Session, file: str) -> Backup:
    """Send a file ("-": stdin) to the daemon, and return the backup that it is.

    Raises:
        OSError: it can't be read. AgentainerError: as `follow`.
    """
    with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as source:

        def send(body: ChunkedBody) -> None:
            while piece := source.read(_PIECE_BYTES):
                body.write(piece)

        return follow(session, f"Importing {file}", "POST", path_of("backups", "import"), write=send)


def passphrase(session: Session, file: str, *, is_new: bool) -> str:
    """Return a passphrase, from a file, the environment, or a person; "" where that of a backup is wanted and nobody says.

    Raises:
        InvalidParameter: the file has none, or a new one is needed and there is nobody to ask. OSError: the file.
    """
    if file:
        with open(file, encoding="utf-8", errors="replace") as lines:
            found = lines.readline().rstrip("\r\n")
        if not found:
            raise InvalidParameter("passphrase-file", f"the first line of {file} is empty")
        return found
    if found := os.environ.get(_VARIABLE, ""):
        return found
    if session.is_interactive:
        import click

        text = "Passphrase" if is_new else "Passphrase of the backup (empty: without its secrets)"
        default = None if is_new else ""
        answer = click.prompt(text, default, hide_input=True, confirmation_prompt=is_new, show_default=False, err=True)
        return str(answer)
    if is_new:
        raise InvalidParameter(
            "passphrase", "is needed to keep secrets", hint=f"--passphrase-file FILE, or {_VARIABLE}"
        )
    return ""


def row(backup: Backup) -> list[str]:
    """Return a backup as a line of the list."""
    names = ", ".join(str(agent.get("name", "")) for agent in backup.get("agents") or []) or "-"
    return [
        str(backup.get("id", "")),
        str(backup.get("name", "")),
        names,
        format_size(int(backup.get("size") or 0)),
        output.age(backup.get("created_at")),
    ]


def files(backup: Backup) -> str:
    """Return how many files are in a backup: "1 file"."""
    count = int(backup.get("files") or 0)
    return f"{count} file{'' if count == 1 else 's'}"


def page(backup: Backup) -> None:
    """Print all that is known of a backup."""
    output.facts(
        [
            ("ID", backup.get("id")),
            ("Name", backup.get("name")),
            ("Description", backup.get("description")),
            ("Created", f"{backup.get('created_at')} ({output.age(backup.get('created_at'))})"),
            ("Host", backup.get("host")),
            ("Version", backup.get("version")),
            ("Size", format_size(int(backup.get("size") or 0))),
            ("Data", f"{format_size(int(backup.get('data_bytes') or 0))} in {files(backup)}"),
            ("Paused", "yes" if backup.get("paused") else ""),
            ("Secrets", backup.get("secrets")),
            ("Requests", backup.get("requests") or ""),
        ]
    )
    output.say("\nAgents:")
    for agent in backup.get("agents") or []:
        output.say(
            f"  {plain(agent.get('name', ''))}   {plain(agent.get('image', ''))}   {plain(agent.get('status', ''))}"
        )
        for volume in agent.get("volumes") or []:
            output.say(f"    {plain(volume.get('host_path', ''))} -> {plain(volume.get('container_path', ''))}")
    omissions(
        backup.get("omissions") or [], int(backup.get("omitted") or 0), "Not in it as it was", print_to=output.say
    )


def restored(result: dict[str, Any]) -> None:
    """Print what a restore did."""
    output.say(plain(f"Backup {result.get('id')} restored successfully!"))
    for agent in result.get("agents") or []:
        name, before = str(agent.get("name", "")), str(agent.get("from", ""))
        what = "" if agent.get("is_new") else ", in place"
        renamed = f" (from {before})" if name != before else ""
        output.say(plain(f"Agent {name}{renamed}: {agent.get('id', '')}{what}"))
    for volume in result.get("volumes") or []:
        source, destination = str(volume.get("source", "")), str(volume.get("destination", ""))
        moved = f" (from {source})" if source != destination else ""
        output.say(plain(f"Volume {destination}{moved}" + ("" if volume.get("is_new") else ": replaced")))
    if requests := result.get("requests"):
        output.say(f"Requests pending again: {requests}")


def omissions(found: list[dict[str, Any]], count: int, title: str, *, print_to: Any = output.note) -> None:  # noqa: ANN401
    """Tell what was left out, the first ones by name."""
    if not count:
        return
    print_to(f"\n{title} ({count}):")
    for each in found[:_SHOWN_OMISSIONS]:
        path = f" {each['path']}" if each.get("path") not in ("", ".", None) else ""
        print_to(f"  {plain(each.get('where', ''))}{plain(path)}: {plain(each.get('reason', ''))}")
    if count > _SHOWN_OMISSIONS:
        print_to(f"  and {count - _SHOWN_OMISSIONS} more")


def left_out(session: Session, result: dict[str, Any], title: str) -> None:
    """Tell what is missing from a result, and let the exit code say that something is."""
    count = int(result.get("omitted") or 0)
    if count:
        session.exit_code = exits.PARTLY_DONE
        if session.has_progress:
            omissions(result.get("omissions") or [], count, title)


def _progress(progress: dict[str, Any]) -> str:
    done, total = int(progress.get("bytes") or 0), int(progress.get("total") or 0)
    size = f"{bar(done, total)} {format_size(done)} of {format_size(total)}" if total else format_size(done)
    return plain(f"{progress.get('step') or 'starting'}   {progress.get('entries', 0)} files   {size}")
