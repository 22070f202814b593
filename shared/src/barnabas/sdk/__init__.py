"""What people who write handlers import."""

from barnabas.sdk.app import App
from barnabas.sdk.context import Context
from barnabas.sdk.errors import CancelledByRequest, PermanentError, RetryableError, Snooze

__all__ = ["App", "CancelledByRequest", "Context", "PermanentError", "RetryableError", "Snooze"]
