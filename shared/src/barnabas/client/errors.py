"""What the client's calls raise: a `TransientError` where the same may work later, a `RejectedError` where not."""

from barnabas.client.models import Job, Problem
from barnabas.errors import BarnabasError, RejectedError, TransientError


class ProblemError(BarnabasError):
    """The API refused the request.

    `problem` is the document that it sent; `code` is the document's code. `retry_after_seconds` is how long the API
    asked to be left alone, where it did.
    """

    code = "problem"

    def __init__(self, problem: Problem, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(problem.detail or problem.title or f"the API answered {problem.status}")
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds
        # The class's code stands for all problems; an instance has the one that the API named.
        self.__dict__["code"] = problem.code


class TransientProblemError(ProblemError, TransientError):
    """The API refused the request for now: it is overloaded, a limit is reached, or the database is away."""


class RejectedProblemError(ProblemError, RejectedError):
    """The API refused the request for good."""


class ApiUnreachableError(TransientError):
    """No answer came from the API.

    The request may have been carried out all the same; with an idempotency key it is safe to repeat.
    """

    code = "api_unreachable"


class UnreadableAnswerError(RejectedError):
    """The answer is not one of Barnabas: the address leads somewhere else."""

    code = "unreadable_answer"


class JobNotEndedError(TransientError):
    """The job has not ended within the time that the caller would wait."""

    code = "job_not_ended"

    def __init__(self, job: Job, waited_seconds: float) -> None:
        super().__init__(f"job {job.id} is still {job.status} after {waited_seconds:g} s")
        self.job = job
