"""Completion scripts, written from the command tree: static, so that TAB starts no Python but for names.

zsh runs the bash script through its own bashcompinit; fish has a language of its own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import click

PROGRAMS = ("agentainerctl", "agentainer")
_FILE_METAVARS = frozenset(("FILE", "PATH", "IMAGE|DOCKERFILE", "FOLDER", "HOST:PATH[:ro]"))

_BASH = """\
# bash completion for agentainerctl
_agentainerctl() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" here="" first="" skip="" word i
    local commands="" options="" names="" choices="" files="" nothing=""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ -n $skip ]]; then skip=""; continue; fi
        case "$here:$word" in
@STEPS@
            *:-*) ;;
            *) if [[ -z $first ]]; then first="$word"; fi ;;
        esac
    done
    case "$here" in
@TABLE@
    esac
    if [[ -n $nothing ]]; then COMPREPLY=(); return; fi
    if [[ -n $files ]]; then COMPREPLY=($(compgen -f -- "$cur")); return; fi
    if [[ -n $choices ]]; then COMPREPLY=($(compgen -W "$choices" -- "$cur")); return; fi
    if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "$options" -- "$cur")); return; fi
    if [[ $names == requests && -n $first ]]; then
        commands="$("${COMP_WORDS[0]}" __names "$first" 2>/dev/null)"
    elif [[ $names == runs || $names == jobs || $names == sessions ]]; then
        commands="$("${COMP_WORDS[0]}" __names --of $names 2>/dev/null)"
    elif [[ -n $names ]]; then
        commands="$commands $("${COMP_WORDS[0]}" __names 2>/dev/null)"
    fi
    COMPREPLY=($(compgen -W "$commands" -- "$cur"))
}
complete -F _agentainerctl agentainerctl agentainer
"""


class Words(NamedTuple):
    """What can stand after one command: `path` is "" for the root, "requests list" for a command of a group.

    `commands`: name and line of help, of commands or of an argument's choices. `options`: the same of options. `choices`:
    values of options that have fixed ones. `with_file`, `with_text`: options that take a path, or some other text.
    `names`: what the arguments are ("agents", "requests", "runs", "jobs", "sessions" or "").
    """

    path: str
    commands: dict[str, str]
    options: dict[str, str]
    choices: dict[str, tuple[str, ...]]
    with_file: tuple[str, ...]
    with_text: tuple[str, ...]
    names: str


def script(shell: str, root: click.Group, context: click.Context) -> str:
    """Return the script for "bash", "zsh" or "fish". Imports all commands."""
    words = list(_walk(root, context, ""))
    if shell == "fish":
        return "\n".join(_fish(words)) + "\n"
    steps = "\n".join(f"            {line}" for line in _steps(words))
    cases = "\n".join(f"        {line}" for one in words for line in _case(one))
    text = _BASH.replace("@STEPS@", steps).replace("@TABLE@", cases)
    return text if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{text}"


def _walk(command: click.Command, context: click.Context, path: str) -> Iterator[Words]:
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    with_value = [option for option in options if not option.is_flag]
    children = _children(command, context)
    yield Words(
        path,
        _lines(children) or _argument_choices(command),
        {
            flag: (option.help or "").partition("  [")[0]
            for option in options
            if not option.hidden
            for flag in option.opts
        },
        {
            flag: tuple(str(choice) for choice in option.type.choices)
            for option in with_value
            if isinstance(option.type, click.Choice)
            for flag in option.opts
        },
        tuple(flag for option in with_value if option.metavar in _FILE_METAVARS for flag in option.opts),
        tuple(
            flag
            for option in with_value
            if option.metavar not in _FILE_METAVARS and not isinstance(option.type, click.Choice)
            for flag in option.opts
        ),
        getattr(command, "names", ""),
    )
    for name, child in children.items():
        yield from _walk(child, click.Context(child, parent=context, info_name=name), f"{path} {name}".strip())


def _children(command: click.Command, context: click.Context) -> dict[str, click.Command]:
    if not isinstance(command, click.Group):
        return {}
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: child for name, child in found.items() if child}


def _lines(children: dict[str, click.Command]) -> dict[str, str]:
    return {name: child.get_short_help_str(70) for name, child in children.items()}


def _argument_choices(command: click.Command) -> dict[str, str]:
    types = [argument.type for argument in command.params if isinstance(argument, click.Argument)]
    return {str(choice): "" for kind in types if isinstance(kind, click.Choice) for choice in kind.choices}


def _steps(words: list[Words]) -> Iterator[str]:
    """Give the shell cases that follow the words before the cursor: which option takes a value, which word is a command."""
    known = {one.path for one in words}
    for one in words:
        flags = (*one.choices, *one.with_file, *one.with_text)
        if flags:
            patterns = "|".join(f'"{one.path}:{flag}"' for flag in flags)
            yield f"{patterns}) skip=1 ;;"
        for name in one.commands:
            path = f"{one.path} {name}".strip()
            if path in known:
                yield f'"{one.path}:{name}") here="{path}" ;;'


def _case(one: Words) -> Iterator[str]:
    yield f'"{one.path}")'
    yield f'    commands="{" ".join(one.commands)}"'
    yield f'    options="{" ".join(one.options)}"'
    yield f'    names="{one.names}"'
    if one.choices or one.with_file or one.with_text:
        yield '    case "$prev" in'
        for flag, values in one.choices.items():
            yield f'        {flag}) choices="{" ".join(values)}" ;;'
        if one.with_file:
            yield f"        {'|'.join(one.with_file)}) files=1 ;;"
        if one.with_text:
            yield f"        {'|'.join(one.with_text)}) nothing=1 ;;"
        yield "    esac"
    yield "    ;;"


def _fish(words: list[Words]) -> Iterator[str]:
    yield "# fish completion for agentainerctl"
    for program in PROGRAMS:
        yield f"complete -c {program} -f"
        for one in words:
            parts = one.path.split()
            conditions = [f"__fish_seen_subcommand_from {part}" for part in parts] or ["__fish_use_subcommand"]
            if parts and one.commands:
                conditions.append(f"not __fish_seen_subcommand_from {' '.join(one.commands)}")
            start = f"complete -c {program} -n {_quoted('; and '.join(conditions))}"
            for name, text in one.commands.items():
                yield f"{start} -a {name} -d {_quoted(text)}"
            for flag, text in one.options.items():
                yield f"{start} {_fish_option(flag, one)} -d {_quoted(text)}"
            if one.names:
                of = f" --of {one.names}" if one.names in ("runs", "jobs", "sessions") else ""
                yield f"{start} -a {_quoted(f'({program} __names{of} 2>/dev/null)')}"


def _fish_option(flag: str, one: Words) -> str:
    shown = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
    if flag in one.choices:
        return f"{shown} -x -a {_quoted(' '.join(one.choices[flag]))}"
    if flag in one.with_file:
        return f"{shown} -r -F"
    return f"{shown} -x" if flag in one.with_text else shown


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
