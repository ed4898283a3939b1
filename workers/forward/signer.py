"""Signatures by the Standard Webhooks scheme (github.com/standard-webhooks/standard-webhooks, v1).

Signed is `<id>.<unix seconds>.<body>` with HMAC-SHA256; the header has `v1,<base64>`, several of them
separated by spaces while a secret is being rotated. A secret is `whsec_` and 24 to 64 bytes in base64.
"""

import base64
import binascii
from datetime import datetime

from standardwebhooks.webhooks import Webhook, hmac_data

from app.errors import ConfigError

SECRET_PREFIX = "whsec_"  # noqa: S105 - what each begins with
SECRET_BYTES = range(24, 65)
HOW_TO_MAKE_ONE = "make one with: echo whsec_$(openssl rand -base64 32)"


class Signer:
    """Signs with one secret."""

    def __init__(self, secret: str) -> None:
        """Takes a secret in its text form.

        Raises:
            ConfigError: it is malformed.
        """
        self._key = _decode(secret)
        self._webhook = Webhook(self._key)

    def sign(self, id: str, moment: datetime, body: bytes) -> str:
        """The signature of a body, such as `v1,K5oZ…`; `moment` is in UTC, its fraction is left out.

        The official library signs text, and cannot be given a body that is not UTF-8. Such a body is
        signed here, in the same form, because it is to be forwarded as well (P8).
        """
        try:
            return self._webhook.sign(id, moment, body.decode())
        except UnicodeDecodeError:
            mac = hmac_data(self._key, f"{id}.{int(moment.timestamp())}.".encode() + body)
            return f"v1,{base64.b64encode(mac).decode()}"


def _decode(secret: str) -> bytes:
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        # The padding is optional, as it is for the library.
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if text == secret or len(key) not in SECRET_BYTES:
        raise ConfigError(
            f"JOBHOOK_FORWARD_SECRET: must be {SECRET_PREFIX} and the base64 of {SECRET_BYTES.start} to "
            f"{SECRET_BYTES.stop - 1} random bytes; {HOW_TO_MAKE_ONE}"
        )
    return key
