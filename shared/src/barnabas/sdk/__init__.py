"""What people who write handlers import."""

from barnabas.domain.backoff import RetryPolicy
from barnabas.sdk.app import App
from barnabas.sdk.context import Context
from barnabas.sdk.errors import CancelledByRequest, PermanentError, RetryableError, Snooze

__all__ = ["App", "CancelledByRequest", "Context", "PermanentError", "RetryPolicy", "RetryableError", "Snooze"]
