"""What a tenant with a limit is told about it: the headers of its answers, and the refusal above it.

As draft-ietf-httpapi-ratelimit-headers has them: the policy, how many more fit now, and in how many seconds one more.
"""

from barnabas.contract.problems import problem_of
from barnabas.postgres.submissions import Rate, RateLimitedError
from barnabas_ingest.http_io import Answer, Header, problem_answer


def rate_headers(rate: Rate) -> tuple[Header, ...]:
    """The limit and what is left of it."""
    return (
        (b"ratelimit-policy", b'"submits";q=%d;w=%d' % (rate.allowed, rate.window_seconds)),
        (b"ratelimit", b'"submits";r=%d;t=%d' % (rate.room, rate.next_whole_seconds)),
    )


def limited_answer(error: RateLimitedError) -> Answer:
    """429: not now, but then."""
    answer = problem_answer(problem_of(error))
    retry_after = (b"retry-after", b"%d" % error.rate.next_whole_seconds)
    return answer._replace(headers=(*answer.headers, retry_after, *rate_headers(error.rate)))
