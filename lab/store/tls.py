"""TLS to Redis: always verified, and what it means when that fails.

The CA travels in the broker's URL (``Settings.broker_url``), so that it reaches every connection that is made from it.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from lab.errors import BrokerUnreachable, NotTrusted

OTHER_NAME = (62, 64)
"""OpenSSL's verification codes for a certificate that names neither this host nor this IP address."""

OUT_OF_DATE = (9, 10)
"""Its codes for one that is not valid yet, or no longer."""


def refused(address: str, exc: BaseException) -> BrokerUnreachable | None:
    """The error for a TLS handshake that failed, if that is what is behind an exception.

    Args:
        address: Of Redis, without user and password.
        exc: What the connection raised.
    """
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return BrokerUnreachable(
            f"Redis at {address} does not complete a TLS handshake: {cause.reason or cause}.",
            "Is that its TLS port? Without TLS the address begins with redis://",
        )
    reason = cause.verify_message.rstrip(".")
    if cause.verify_code in OTHER_NAME:
        name = urlsplit(address).hostname
        hint = f"Use a name that it is for, or make one for all names, on Redis's machine: sh deploy/certificate {name} ..."
    elif cause.verify_code in OUT_OF_DATE:
        hint = "Is this machine's clock right? To make a new one, on Redis's machine: sh deploy/certificate NAME"
    else:
        hint = (
            "CROSSHOST_CA_FILE must be the ca.crt of the machine that Redis runs on: copy it again.\n"
            "If it is, somebody else is answering at this address."
        )
    return NotTrusted(f"Redis at {address} is not trusted, its certificate is refused: {reason}.", hint)
