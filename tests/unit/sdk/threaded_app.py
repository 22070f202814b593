"""An app whose import starts a thread, which no fork would take along."""

import os
import threading
from typing import Any

from barnabas.sdk import App
from tests.unit.sdk import isolated_app

app = App("threaded")

threading.Thread(target=threading.Event().wait, daemon=True).start()


@app.handler("pid", isolate="process")
def pid(payload: Any) -> int:
    return os.getpid()


app.handler("family", isolate="process")(isolated_app.family)
