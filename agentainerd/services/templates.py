"""Templates of jobs: what there is, and what becomes of a request that names one."""

import logging

from agentainerd import offload
from agentainerd.errors import Conflict, NotFound
from agentainerd.model.jobs import JobRequest
from agentainerd.model.templates import Template
from agentainerd.store.templates import TemplateFolder, TemplatesRead

log = logging.getLogger(__name__)


class TemplateService:
    """`folder`: where they are; another may be put in its place at any time. Files are read again where they changed,
    whenever somebody asks.

    Every method blocks its greenlet on the disk.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._files = TemplateFolder()
        self._told: frozenset[str] = frozenset()

    def list(self) -> tuple[list[Template], list[str]]:
        """Return all templates, by name, and what is wrong with files that are none."""
        found = self._read()
        return [found.templates[name] for name in sorted(found.templates)], found.problems

    def get(self, name: str) -> Template:
        """Return one.

        Raises:
            NotFound: there is none of this name.
            Conflict: its file is wrong.
        """
        found = self._read()
        if name in found.templates:
            return found.templates[name]
        if name in found.broken:
            message = f"Template {name[:64]!r} can't be used: " + "; ".join(found.broken[name])
            raise Conflict(message, code="TEMPLATE_BROKEN", hint="correct the file; it is read again by itself")
        known = ", ".join(sorted(found.templates))
        hint = f"there are {known}" if known else f"put one into {self.folder}/NAME.yaml (docs/templates.md)"
        raise NotFound("template", name[:64], hint=hint)

    def expand(self, request: JobRequest) -> JobRequest:
        """Return what a request asks for, with all that its template says; one without a template is returned as it is.

        Raises:
            InvalidParameter: a parameter is unknown, missing, or can't be.
            NotFound: there is no such template.
            Conflict: its file is wrong.
        """
        return self.get(request.template.name).expand(request) if request.template else request

    def _read(self) -> TemplatesRead:
        found = offload.run(self._files.read, self.folder)
        problems = frozenset(found.problems)
        for problem in sorted(problems - self._told):
            log.warning("a template can't be used: %s", problem)
        self._told = problems
        return found
