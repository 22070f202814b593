"""docs/openapi.json: the HTTP interface, as ingest serves it under `/openapi.json`."""

import json
from importlib import import_module


def text() -> str:
    """The file's text."""
    # Services are imported when their file is made: importing this package must not need them.
    app = import_module("barnabas_ingest.app").make_app()
    return json.dumps(import_module("barnabas_ingest.openapi").document(app), indent=2, ensure_ascii=False) + "\n"
