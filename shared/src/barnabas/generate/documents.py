"""The table of generated files: where each one is kept and what makes its text.

A text is a function of the source alone: the same tree gives the same bytes on any machine, at any time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from barnabas.errors import RejectedError
from barnabas.generate import errors_page, metrics_page, openapi, settings_page, states_page, topics_page
from barnabas.generate.database_schema import make_schema
from barnabas.generate.json_schemas import SCHEMAS, json_schema


class NotACheckoutError(RejectedError):
    """Generated files belong to a checkout of the repository; this installation isn't one."""

    code = "not_a_checkout"


@dataclass(frozen=True)
class Document:
    """One generated file; `path` is relative to the repository's root."""

    path: str
    make: Callable[[], str]

    @cached_property
    def _text(self) -> str:
        return self.make()

    def text(self) -> str:
        """What the file should say; made once."""
        return self._text


DATABASE_SCHEMA = Document("shared/src/barnabas/postgres/schema.sql", make_schema)

DOCUMENTS: tuple[Document, ...] = (
    Document("docs/reference/settings.md", settings_page.text),
    Document("docs/reference/metrics.md", metrics_page.text),
    Document("docs/reference/topics.md", topics_page.text),
    Document("docs/reference/errors.md", errors_page.text),
    Document("docs/reference/job-states.md", states_page.text),
    Document("docs/openapi.json", openapi.text),
    *(Document(f"shared/src/barnabas/contract/schemas/{name}.json", partial(json_schema, name)) for name in SCHEMAS),
    DATABASE_SCHEMA,
)


def repository() -> Path:
    """The root of the checkout that this package is installed from; raises `NotACheckoutError`."""
    root = Path(__file__).parents[4]
    if not (root / "shared" / "src" / "barnabas").is_dir():
        raise NotACheckoutError
    return root
