"""The answer to a batch of which there is nothing to say but that it was accepted."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from barnabas.contract.http import BatchAnswer, Verdict
from barnabas.contract.jobs import encode
from barnabas.postgres.ids import make_id
from barnabas_ingest.batch import queued_answer


@given(st.lists(st.uuids(), min_size=1, max_size=5))
def test_the_answer_made_at_once_has_the_bytes_of_the_verdicts(ids: list[UUID]) -> None:
    answer = BatchAnswer([Verdict(verdict="accepted", id=each, status="queued") for each in ids])

    assert queued_answer(ids) == queued_answer([make_id(each.bytes) for each in ids]) == encode(answer)
