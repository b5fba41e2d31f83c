"""Chat Completions without I/O: our request as a body, their stream as our events."""

from .answer import ChatAnswer, Expectations
from .failures import (
    MAX_ERROR_BODY_BYTES,
    refusal,
    stream_failure,
    told_failure,
    whole_answer_failure,
)
from .redaction import Redactor, words_of
from .request import build_body, check_supported
from .upstream import DIALECTS, Dialect, dialect_of

__all__ = [
    "DIALECTS",
    "MAX_ERROR_BODY_BYTES",
    "ChatAnswer",
    "Dialect",
    "Expectations",
    "Redactor",
    "build_body",
    "check_supported",
    "dialect_of",
    "refusal",
    "stream_failure",
    "told_failure",
    "whole_answer_failure",
    "words_of",
]
