"""What a program on the command list may not be asked: options by which it runs another program, or leaves the workspace.

Long options are refused in every abbreviation, as getopt and git take them; short ones also inside a cluster. A program that is
not here has no such option that is known. Paths are the policy's affair.
"""

import re
from collections.abc import Callable, Sequence


def names(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


LONG = {
    "cargo": ("config",),
    "git": (
        "config-env",
        "exec",
        "exec-path",
        "ext-diff",
        "extcmd",
        "git-dir",
        "open-files-in-pager",
        "output",
        "receive-pack",
        "template",
        "textconv",
        "upload-pack",
        "work-tree",
    ),
    "make": ("eval", "include-dir"),
    "node": (
        "env-file",
        "eval",
        "experimental-loader",
        "import",
        "interactive",
        "loader",
        "print",
        "require",
    ),
    "rg": ("hostname-bin", "pre", "pre-glob", "search-zip"),
    "rustc": ("codegen",),
    "sed": ("file",),
    "sort": ("compress-program", "output"),
    "tar": (
        "checkpoint-action",
        "info-script",
        "new-volume-script",
        "rmt-command",
        "rsh-command",
        "to-command",
        "use-compress-program",
    ),
}
SHORT = {
    "node": "eipr",
    "rg": "z",
    "rustc": "CZ",
    "sed": "f",
    "sort": "o",
    "tar": "FI",
    "cargo": "ZC",
    "make": "EI",
}
WORDS = {
    "find": names("-exec -execdir -ok -okdir -delete -fprint -fprint0 -fprintf -fls -files0-from"),
}
GIT_SUBCOMMANDS = names(
    """add apply blame branch cat-file check-ignore checkout cherry cherry-pick clean clone commit config count-objects describe
    diff diff-tree fetch for-each-ref format-patch gc grep help init log ls-files ls-remote ls-tree merge merge-base mv name-rev
    notes pull push range-diff rebase reflog remote reset restore rev-list rev-parse revert rm shortlog show show-branch show-ref
    stash status switch symbolic-ref tag version whatchanged worktree"""
)
GIT_SETTINGS = re.compile(
    r"(user|color|advice|i18n|push|pull)\.[\w.-]+|core\.(autocrlf|eol|quotepath|filemode)|init\.defaultbranch"
)
GIT_SETTING_READS = frozenset(("--get", "--get-all", "--get-regexp", "--list", "-l", "get", "list"))
PYTHON_MODULES = names(
    "pytest unittest doctest pip venv compileall py_compile json.tool build mypy ruff black flake8 isort coverage tox"
)
CARGO_SUBCOMMANDS = names(
    "add b bench build c check clean clippy d doc fetch fix fmt init metadata new r remove run search t test tree update version"
)
GO_SUBCOMMANDS = names("build clean doc env fix fmt get help install list mod run test version vet work")
PACKAGE_RUNNERS = names("config create dlx edit exec explore init node repl set set-script shell x")


def reason(name: str, arguments: Sequence[str]) -> str:
    """Return why the program may not be started with these arguments, or ""."""
    for argument in arguments:
        if found := _option(name, argument):
            return f"{name} {found} runs another program or writes elsewhere"
    return CHECKS[name](arguments) if name in CHECKS else ""


def is_guarded(name: str) -> bool:
    """Whether `reason` has to see each argument as it will be."""
    return name in LONG or name in SHORT or name in WORDS or name in CHECKS


def _option(name: str, argument: str) -> str:
    if argument in WORDS.get(name, ()):
        return argument
    if argument.startswith("--"):
        given = argument[2:].split("=")[0]
        return argument if given and any(option.startswith(given) for option in LONG.get(name, ())) else ""
    if argument.startswith("-") and any(letter in argument[1:] for letter in SHORT.get(name, "")):
        return argument
    return ""


def _git(arguments: Sequence[str]) -> str:
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        if arguments[at] == "-C":
            at += 1  # the policy looks at where it leads
        elif arguments[at] not in ("--no-pager", "--version", "--help", "--literal-pathspecs", "-P"):
            return f"git {arguments[at]} before the subcommand changes what git runs"
        at += 1
    if at >= len(arguments):
        return ""
    subcommand, rest = arguments[at], list(arguments[at + 1 :])
    if subcommand not in GIT_SUBCOMMANDS:
        return f"git {subcommand} is not one of git's own that can't run other programs"
    if any("ext::" in argument or "fd::" in argument for argument in rest):
        return "git's ext:: runs another program"
    return _git_subcommand(subcommand, rest)


def _git_subcommand(subcommand: str, rest: list[str]) -> str:
    if subcommand == "config":
        return _git_config(rest)
    if subcommand in ("clone", "init") and any(re.match(r"-[^-]*[cu]", argument) for argument in rest):
        return f"git {subcommand} -c and -u change what git runs"
    ignored = {"clean": r"-[^-]*[xX]", "stash": r"-[^-]*a|--al?l?$"}.get(subcommand)
    if ignored and any(re.match(ignored, argument) for argument in rest):
        return f"git {subcommand} of what git ignores would remove the runtime's own folder"
    if subcommand == "grep" and any(re.match(r"-[^-]*O", argument) for argument in rest):
        return "git grep -O runs a pager"
    if subcommand == "rebase" and any(re.match(r"-[^-]*[xi]", argument) or "--i" in argument[:3] for argument in rest):
        return "git rebase -x and -i run other programs"
    if subcommand == "remote" and rest[:1] not in ([], ["-v"], ["show"], ["get-url"]):
        return "git remote only shows remotes here"
    return ""


def _git_config(rest: list[str]) -> str:
    places = {"--local", "--global", "--system", "--worktree"}
    words = [argument for argument in rest if argument not in places]
    if words and words[0] in GIT_SETTING_READS:
        return ""
    names = [
        argument
        for argument in words
        if argument not in ("--add", "--unset", "--unset-all", "set", "unset", "--bool", "--int")
    ]
    if not names or names[0].startswith("-"):
        return "git config takes --get, --list, or the name of a setting here"
    if len(names) == 1 or GIT_SETTINGS.fullmatch(names[0].lower()):
        return ""
    return f"git config {names[0]} can make git run another program"


def _python(arguments: Sequence[str]) -> str:
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] != "-":
        option = arguments[at]
        if option in ("--version", "--help"):
            return ""
        if option.startswith("--"):
            return f"python {option} is not known here"
        if "m" in option:
            module = option.partition("m")[2] or (arguments[at + 1] if at + 1 < len(arguments) else "")
            return (
                ""
                if module in PYTHON_MODULES and "c" not in option.partition("m")[0]
                else f"python -m {module} can run any program"
            )
        if not set(option[1:]) <= set("bBdEIOPqsSuvVxW"):
            return f"python {option} runs a program from its arguments, or asks: use run_python"
        at += 2 if option in ("-W",) else 1
    if at >= len(arguments):
        return "" if "-V" in arguments else "python without a file reads a program from stdin: use run_python"
    return "python - reads a program from stdin: use run_python" if arguments[at] == "-" else ""


def _node(arguments: Sequence[str]) -> str:
    if any(argument in ("--version", "-v", "--help", "--test") for argument in arguments):
        return ""
    files = [argument for argument in arguments if not argument.startswith("-")]
    return "" if files and "-" not in arguments else "node without a file reads a program from stdin"


def _package_manager(arguments: Sequence[str]) -> str:
    for argument in arguments:
        given = argument.lstrip("-").split("=")[0].lower()
        if (
            argument.startswith("-")
            and given
            and ("script-shell".startswith(given) or "call".startswith(given) or given == "shell")
        ):
            return f"{argument} runs another program"
        if argument.startswith("-") and given in ("e", "eval", "p", "print", "r", "preload", "require", "import"):
            return f"{argument} runs a program from its arguments"
    words = [argument for argument in arguments if not argument.startswith("-")]
    if any(word in PACKAGE_RUNNERS for word in words[:2]) and words[:1] != ["run"]:
        return f"{' '.join(words[:2])} runs another program"
    return ""


def _cargo(arguments: Sequence[str]) -> str:
    return _subcommand("cargo", CARGO_SUBCOMMANDS, arguments)


def _go(arguments: Sequence[str]) -> str:
    for argument in arguments:
        if argument.lstrip("-").split("=")[0] in ("exec", "toolexec", "vettool", "overlay") and argument.startswith(
            "-"
        ):
            return f"go {argument} runs another program"
    if list(arguments[:1]) == ["env"] and any(argument in ("-w", "-u") for argument in arguments):
        return "go env -w changes what go runs"
    return _subcommand("go", GO_SUBCOMMANDS, arguments)


def _subcommand(name: str, known: frozenset[str], arguments: Sequence[str]) -> str:
    if not arguments or arguments[0] in known or arguments[0] in ("--version", "-V", "--help"):
        return ""
    return f"{name} {arguments[0]} is not one of: {' '.join(sorted(known))}"


def _make(arguments: Sequence[str]) -> str:
    for at, argument in enumerate(arguments):
        if re.match(r"(SHELL|\.SHELLFLAGS|MAKEFLAGS|MFLAGS|MAKE)\s*[:?+!]*=", argument):
            return f"make {argument} changes what make runs"
        after = arguments[at + 1 : at + 2]
        reads = re.fullmatch(r"-[^-]*f(.*)|--(?:fi?l?e?|makef?i?l?e?)(?:=(.*))?", argument)
        if reads and "-" in (reads.group(1) or reads.group(2) or "", *after):
            return "make -f - reads a makefile from stdin"
    return ""


def _awk(arguments: Sequence[str]) -> str:
    for argument in arguments:
        if re.match(r"-[^-]*[filEe]|--", argument) or re.search(r"\bsystem\b|[|>@]|getline|ENVIRON", argument):
            return f"awk {argument} can run another program, or reads and writes elsewhere"
    return ""


def _rustc(arguments: Sequence[str]) -> str:
    return "rustc @file takes options from a file" if any(argument.startswith("@") for argument in arguments) else ""


CHECKS: dict[str, Callable[[Sequence[str]], str]] = {
    "awk": _awk,
    "bun": _package_manager,
    "cargo": _cargo,
    "gawk": _awk,
    "git": _git,
    "go": _go,
    "make": _make,
    "mawk": _awk,
    "node": _node,
    "npm": _package_manager,
    "pnpm": _package_manager,
    "python": _python,
    "python3": _python,
    "rustc": _rustc,
    "yarn": _package_manager,
}
