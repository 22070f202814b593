"""The ingest process: takes jobs in by HTTP and from the intake topic, and says 202 when they are committed."""

from barnabas.runtime.service import Service, main
from barnabas_ingest.housekeeping import forget_told_rows, keep_clock
from barnabas_ingest.intake import take_intake
from barnabas_ingest.resources import open_resources, unready
from barnabas_ingest.server import serve_http
from barnabas_ingest.settings import IngestSettings

SERVICE = Service(
    name="ingest",
    settings=IngestSettings,
    resources=open_resources,
    loops=(serve_http, take_intake, forget_told_rows, keep_clock),
    unready=unready,
)

if __name__ == "__main__":
    main(SERVICE)
