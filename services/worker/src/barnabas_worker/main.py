"""The worker process: takes ready jobs, runs each attempt under a lease, and reports how it ended."""

from barnabas.runtime.service import Service, main
from barnabas_worker.backlog import fetch_backlogs
from barnabas_worker.recall import recall_batches
from barnabas_worker.report import keep_clock, report_progress
from barnabas_worker.resources import open_resources, unready
from barnabas_worker.settings import WorkerSettings
from barnabas_worker.sharing import keep_sharing
from barnabas_worker.take import take_records
from barnabas_worker.turns import take_turns

SERVICE = Service(
    name="worker",
    settings=WorkerSettings,
    resources=open_resources,
    loops=(take_records, take_turns, fetch_backlogs, keep_sharing, keep_clock, recall_batches, report_progress),
    unready=unready,
)

if __name__ == "__main__":
    main(SERVICE)
