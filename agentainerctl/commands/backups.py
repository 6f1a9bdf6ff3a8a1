"""`backup create list show verify restore export import delete`."""

import click

from agentainerctl import backups, output
from agentainerctl.client import path_of
from agentainerctl.options import Group, output_options
from agentainerctl.output import plain
from agentainerctl.session import Session
from agentainerd.errors import InvalidParameter
from agentainerd.units import format_size

passphrase_option = click.option(
    "--passphrase-file", default="", metavar="FILE", help="File whose first line is the passphrase."
)


@click.group(
    "backup",
    cls=Group,
    examples=("agentainerctl backup create --name daily", "agentainerctl backup restore backup-1763712345-3fa91c"),
)
def backup() -> None:
    """Back up agents with what is in their volumes, and restore them.

    A backup is one file, which another host can restore too.
    """


@backup.command(
    "create",
    examples=(
        "agentainerctl backup create --name daily",
        "agentainerctl backup create --name move --secrets --include-requests --passphrase-file secret.txt",
        'agentainerctl backup create --name before-upgrade --description "v1.2" --agents web,worker --pause',
    ),
)
@click.option("-n", "--name", required=True, metavar="NAME", help="What to call it.")
@click.option("-d", "--description", default="", metavar="TEXT", help="What it is for.")
@click.option("-a", "--agents", multiple=True, metavar="AGENT,...", help="Only these.  [default: all]")
@click.option("--secrets", "has_secrets", is_flag=True, help="Keep secrets too, encrypted with a passphrase.")
@click.option("--include-requests", is_flag=True, help="Keep pending requests too, encrypted.")
@passphrase_option
@click.option("--pause", is_flag=True, help="Let running agents stand still meanwhile; requests wait.")
@output_options("table", "json", "yaml")
@click.pass_obj
def create(
    session: Session,
    name: str,
    description: str,
    agents: tuple[str, ...],
    has_secrets: bool,
    include_requests: bool,
    passphrase_file: str,
    pause: bool,
) -> None:
    """Make a backup: what agents are, and all that is in their volumes.

    Secrets of agents (variables that are masked elsewhere, tokens) are left out, or with --secrets encrypted with a
    passphrase: that of --passphrase-file, else of AGENTAINER_BACKUP_PASSPHRASE, else it is asked for.

    Exit code 8: it was made, and something is not in it as it was, which is told.
    """
    wants = has_secrets or include_requests
    passphrase = backups.passphrase(session, passphrase_file, is_new=True) if wants else ""
    body = {
        "name": name,
        "description": description,
        "agents": names(agents),
        "pause": pause,
        "passphrase": passphrase,
        "include_requests": include_requests,
    }
    result = backups.follow(session, f"Backing up {name}", "POST", path_of("backups"), body=body)
    if session.is_machine:
        output.machine(result, session.output)
    elif session.is_quiet:
        print(plain(result.get("id", "")))
    else:
        print("Backup created successfully!")
        listed = ", ".join(str(agent.get("name", "")) for agent in result.get("agents") or []) or "-"
        size = format_size(int(result.get("size") or 0))
        output.facts(
            [
                ("ID", result.get("id")),
                ("Name", result.get("name")),
                ("Agents", listed),
                ("Created", result.get("created_at")),
                ("Size", size),
            ]
        )
        if result.get("secrets") == "left out":
            output.note("\nSecrets of agents were left out; --secrets keeps them, encrypted.")
    backups.left_out(session, result, "Not in it as it was")


@backup.command("list", examples=("agentainerctl backup list", "agentainerctl backup list -o json"))
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def list_(session: Session) -> None:
    """List backups, the newest first."""
    found = session.client.get(path_of("backups")) or []
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in found:
            print(plain(each.get("id" if session.is_quiet else "name", "")))
    elif not found:
        print("No backups")
    else:
        output.table(backups.COLUMNS, [backups.row(each) for each in found])


@backup.command(
    "show",
    examples=("agentainerctl backup show backup-1763712345-3fa91c", "agentainerctl backup show daily -o json"),
)
@click.argument("ref", metavar="BACKUP")
@output_options("table", "json", "yaml")
@click.pass_obj
def show(session: Session, ref: str) -> None:
    """Show what is in a backup, and what is not."""
    found = session.client.get(path_of("backups", ref))
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet:
        print(plain(found.get("id", "")))
    else:
        backups.page(found)


@backup.command(
    "verify",
    examples=("agentainerctl backup verify backup-1763712345-3fa91c", "agentainerctl backup verify daily"),
)
@click.argument("ref", metavar="BACKUP")
@output_options("table", "json", "yaml")
@click.pass_obj
def verify(session: Session, ref: str) -> None:
    """Read a whole backup and compare it with its checksum."""
    result = backups.follow(session, f"Checking {ref}", "POST", path_of("backups", ref, "verify"))
    if session.is_machine:
        output.machine(result, session.output)
    elif session.is_quiet:
        print(plain(result.get("id", "")))
    else:
        size = format_size(int(result.get("data_bytes") or 0))
        print(plain(f"Backup {result.get('id')} is whole: {backups.files(result)}, {size}"))


@backup.command(
    "restore",
    examples=(
        "agentainerctl backup restore backup-1763712345-3fa91c",
        "agentainerctl backup restore daily --agents web --in-place",
    ),
)
@click.argument("ref", metavar="BACKUP")
@click.option("-a", "--agents", multiple=True, metavar="AGENT,...", help="Only these of the backup.  [default: all]")
@click.option("--as-new", "mode", flag_value="new", default="new", help="Beside what is there.  [default]")
@click.option("--in-place", "mode", flag_value="in-place", help="Over stopped agents of these names and their volumes.")
@passphrase_option
@output_options("table", "json", "yaml")
@click.pass_obj
def restore(session: Session, ref: str, agents: tuple[str, ...], mode: str, passphrase_file: str) -> None:
    """Restore agents and their volumes from a backup. They are not started.

    All of it is checked first. What is there is left as it is: agents get other names and volumes other places where theirs
    are taken. With --in-place they get the settings and the data of the backup, and lose what they have.

    Secrets that the backup has encrypted need its passphrase: --passphrase-file, else AGENTAINER_BACKUP_PASSPHRASE, else it
    is asked for.

    Exit code 8: it was done, and something is not there as it was, which is told.
    """
    passphrase = ""
    if (session.client.get(path_of("backups", ref)) or {}).get("secrets") == "encrypted":
        passphrase = backups.passphrase(session, passphrase_file, is_new=False)
    elif passphrase_file:
        raise InvalidParameter("passphrase-file", "the backup has nothing that is encrypted: leave it out")
    body = {"agents": names(agents), "in_place": mode == "in-place", "passphrase": passphrase}
    result = backups.follow(session, f"Restoring {ref}", "POST", path_of("backups", ref, "restore"), body=body)
    if session.is_machine:
        output.machine(result, session.output)
    elif session.is_quiet:
        for agent in result.get("agents") or []:
            print(plain(agent.get("id", "")))
    else:
        backups.restored(result)
    backups.left_out(session, result, "Not there as it was")


@backup.command(
    "export",
    examples=(
        "agentainerctl backup export daily daily.tar.gz",
        "agentainerctl backup export daily - | ssh elsewhere agentainerctl backup import -",
    ),
)
@click.argument("ref", metavar="BACKUP")
@click.argument("file", metavar="FILE")
@click.option("-f", "--force", is_flag=True, help="Write over FILE, if it is there.")
@output_options("table", "json", "yaml")
@click.pass_obj
def export(session: Session, ref: str, file: str, force: bool) -> None:
    """Write a backup to a file of one's own, for another host or a safe place. FILE - is standard output."""
    size = backups.save(session, ref, file, is_forced=force)
    if file == "-":
        return
    if session.is_machine:
        output.machine({"file": file, "size": size}, session.output)
    else:
        print(plain(file if session.is_quiet else f"Backup {ref} exported to {file} ({format_size(size)})"))


@backup.command(
    "import",
    examples=("agentainerctl backup import daily.tar.gz", "agentainerctl backup import - <daily.tar.gz"),
)
@click.argument("file", metavar="FILE")
@output_options("table", "json", "yaml")
@click.pass_obj
def import_(session: Session, file: str) -> None:
    """Take in a backup that was exported, here or on another host. It is checked. FILE - is standard input."""
    result = backups.load(session, file)
    if session.is_machine:
        output.machine(result, session.output)
    elif session.is_quiet:
        print(plain(result.get("id", "")))
    else:
        print(plain(f"Backup {result.get('id')} imported successfully"))
        output.facts(
            [("Name", result.get("name")), ("Host", result.get("host")), ("Created", result.get("created_at"))]
        )


@backup.command(
    "delete",
    examples=(
        "agentainerctl backup delete backup-1763712345-3fa91c",
        "agentainerctl backup delete --force backup-1763712345-3fa91c",
    ),
)
@click.argument("ref", metavar="BACKUP")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@output_options("table", "json", "yaml")
@click.pass_obj
def delete(session: Session, ref: str, force: bool) -> None:
    """Delete a backup for good."""
    if not force:
        session.confirm(f"Delete the backup '{ref}' for good?", f"refusing to delete the backup '{ref}'")
    result = session.client.call("DELETE", path_of("backups", ref)).get("data") or {}
    if session.is_machine:
        output.machine(result, session.output)
    else:
        print(plain(result.get("id", "") if session.is_quiet else f"Backup {result.get('id')} deleted successfully"))


def names(texts: tuple[str, ...]) -> list[str]:
    """Return the names in options that may be repeated and have several with commas."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]
