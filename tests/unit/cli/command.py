"""Runs the command line in this process, as its console script does."""

import sys
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from barnabas.cli.main import main


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


@dataclass(frozen=True, slots=True)
class Command:
    monkeypatch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", ["barnabas", *arguments])
        self.capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self.capture.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Outcome(code, out, err)
