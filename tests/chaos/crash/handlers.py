"""A handler that stands still until it is told to go on, and takes its worker's loop with it.

`--app tests.chaos.crash.handlers:app`: the handlers of the ledger are in it, too.
"""

import os
import time
from pathlib import Path

from pydantic import BaseModel

from barnabas.sdk import Context
from tests.chaos.ledger import LEDGER_VARIABLE, Began, Effect, now, own_ledger
from tests.support.ledger_handlers import Ran, app

_LOOK_SECONDS = 0.01


class Hold(BaseModel):
    """Where the word to go on is given, as a file for each process."""

    directory: str


@app.handler("hold", timeout=600)
async def hold(payload: Hold, ctx: Context) -> Ran:
    """Wait for the word and succeed.

    It blocks: a process that was frozen, and is told to go on in the moment in which it thaws, has its effect before
    it can learn that its lease is over.
    """
    pid, run = os.getpid(), f"{ctx.job_id}-{ctx.losses}"
    with own_ledger(Path(os.environ[LEDGER_VARIABLE]), "held") as ledger:
        ledger.write(Began(now(), str(ctx.tenant_id), str(ctx.job_id), ctx.attempt, pid=pid, losses=ctx.losses))
        while not (Path(payload.directory) / str(pid)).exists():
            time.sleep(_LOOK_SECONDS)  # noqa: ASYNC251
        ledger.write(
            Effect(now(), str(ctx.tenant_id), str(ctx.job_id), ctx.attempt, pid=pid, losses=ctx.losses, result_hash=run)
        )
    return Ran(run=run)
