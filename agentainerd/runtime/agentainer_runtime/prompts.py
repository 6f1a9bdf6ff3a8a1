"""What the model is told before anything else."""

from agentainer_runtime.settings import Settings

_WHO = """You are {name}, an agent that works on its own in a container. Your folder is {workspace}: everything that you are to \
work on is there, and nothing outside of it is yours.

- Do what you are asked for with your tools. Look before you change, and check what you changed: run what proves it.
- Answers of tools that are too long are cut; they say where the rest is kept.
- A tool that fails says why. Don't repeat what failed: find out what is different.
- When it is done, or can't be, say in a few sentences what you did and what is left. That answer ends your work."""


_REPOSITORY = """It is a Git repository, a clone of {url}{branch}. Commit what you finish with git_commit: a subject that says \
what it does now, and after an empty line why."""


def system_prompt(settings: Settings) -> str:
    """Return the system message: how to work here, then the instructions of the one who deployed the agent."""
    told = _WHO.format(name=settings.name, workspace=settings.workspace)
    if settings.source:
        branch = settings.source.target or settings.source.branch
        told += "\n\n" + _REPOSITORY.format(
            url=settings.source.url, branch=f", on the branch {branch}" if branch else ""
        )
    return f"{told}\n\n{settings.instructions.strip()}" if settings.instructions.strip() else told
