"""What is kept of an error, in the record of its event: never more than there is room for, and always text."""

import traceback

MAX_MESSAGE = 1000
MAX_TRACEBACK = 8000
"""Characters; of a traceback the end, where the cause is."""


def message(error: BaseException, most: int = MAX_MESSAGE) -> str:
    """What an error says, or its type if it says nothing."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - even that a handler's exception may get wrong
        said = "(its message cannot be shown)"
    return text((said or type(error).__qualname__)[:most])


def trace(error: BaseException, most: int = MAX_TRACEBACK) -> str:
    """Its traceback; of a long one the end, where the cause is."""
    return text("".join(traceback.format_exception(error))[-most:])


def text(said: str) -> str:
    """Without lone surrogates, which are not JSON."""
    return said.encode("utf-8", "replace").decode()
