"""Errors of the server's own, beside those of the protocol.

DSPexError
├── BridgeUnavailableError    unavailable            retryable: no bridge can be started
├── RefusedLMsError           invalid_params         the LMs that the server was started with
├── WrongStateError           wrong_state            data: resource, id, state, wanted, allowed
├── ExecutionInterruptedError interrupted            retryable: its server ended while it ran
└── DatabaseUnavailableError  database_unavailable   retryable: a write may be there
"""

from __future__ import annotations

from dspex_protocol.errors import DSPexError, InvalidParamsError, UnavailableError

__all__ = [
    "BridgeUnavailableError",
    "DatabaseUnavailableError",
    "ExecutionInterruptedError",
    "RefusedLMsError",
    "WrongStateError",
]


class BridgeUnavailableError(UnavailableError):
    """The command of the bridge cannot be started, or ends at once."""

    retryable = True


class RefusedLMsError(InvalidParamsError):
    """A bridge does not take the LMs of the server's settings; no other one would."""


class WrongStateError(DSPexError):
    """A resource cannot go from the state that it is in to the one that was asked for."""

    code = "wrong_state"


class ExecutionInterruptedError(DSPexError):
    """The server that ran it ended before it did: whether the LM was asked is not known."""

    code = "interrupted"
    retryable = True


class DatabaseUnavailableError(DSPexError):
    """The database cannot be reached, or cannot be written. Where its answer to a commit was lost,
    what was written is there."""

    code = "database_unavailable"
    retryable = True
