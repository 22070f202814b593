"""`python -m barnabas.generate [--check]`: writes every file that is made from the source, or says which are stale.

What is generated is checked in, so that a change of it is seen in review; `make verify` fails on a difference.
"""

import argparse
import difflib
import sys
from pathlib import Path

from barnabas.generate.documents import DOCUMENTS, Document, repository


def main(arguments: list[str] | None = None) -> int:
    """Write, or compare with `--check`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m barnabas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is not current")
    parser.add_argument("--only", metavar="TEXT", default="", help="only files whose path contains this")
    given = parser.parse_args(arguments)

    root = repository()
    differences = 0
    for document in DOCUMENTS:
        if given.only not in document.path:
            continue
        difference = compare(document, root)
        differences += bool(difference)
        if difference and given.check:
            sys.stdout.write(difference)
        elif difference:
            file = root / document.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(document.text(), encoding="utf-8")
            sys.stdout.write(f"wrote {document.path}\n")
    return 1 if differences and given.check else 0


def compare(document: Document, root: Path) -> str:
    """A unified diff from the file as it is to the file as it should be; empty when it is current."""
    file = root / document.path
    found = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = difflib.unified_diff(
        found.splitlines(keepends=True),
        document.text().splitlines(keepends=True),
        fromfile=f"{document.path} (checked in)",
        tofile=f"{document.path} (made from the source)",
    )
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
