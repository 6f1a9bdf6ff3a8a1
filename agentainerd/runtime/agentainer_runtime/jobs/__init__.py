"""Jobs: a run in the flow of the containerized-agent document instead of the free loop: analysis, actions, result.json."""


class JobFailed(Exception):
    """A job is not complete: actions of it failed, or its result can't be written."""
