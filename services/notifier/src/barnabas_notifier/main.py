"""The notifier process: turns results into deliveries, sends each as a signed webhook, and tries again or gives up."""

from barnabas.runtime.service import Service, main
from barnabas_notifier.claim import claim_early
from barnabas_notifier.finish import tidy_outbox, write_outcomes
from barnabas_notifier.resources import open_resources, unready
from barnabas_notifier.send import send_deliveries
from barnabas_notifier.settings import NotifierSettings
from barnabas_notifier.take import take_records
from barnabas_notifier.unpark import take_parked
from barnabas_notifier.upkeep import keep_clock, keep_endpoints, keep_identity, recall_batches, sweep_parked

SERVICE = Service(
    name="notifier",
    settings=NotifierSettings,
    resources=open_resources,
    loops=(
        take_records,
        claim_early,
        take_parked,
        send_deliveries,
        write_outcomes,
        tidy_outbox,
        keep_identity,
        keep_clock,
        keep_endpoints,
        sweep_parked,
        recall_batches,
    ),
    unready=unready,
)

if __name__ == "__main__":
    main(SERVICE)
