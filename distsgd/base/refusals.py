"""What the clients of object storages raise, in words that say what to do. No I/O here."""

from __future__ import annotations

from distsgd.errors import first_line

# Asked last for keys, where nothing else has any: the address of a cloud's machines for themselves.
_METADATA = ("169.254.169.254", "metadata.google.internal")
_NOT_REACHED = ("curlCode", "NETWORK_CONNECTION", "error sending request", "no answer within")
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_ACCOUNT_KEY",
}


def explained(error: Exception, scheme: str, endpoint: str | None) -> str:
    """What `error` says, and before it what that means, where it is known.

    >>> explained(OSError("curlCode: 7"), "s3", "http://host:9000")
    'nothing answers at http://host:9000, where AWS_ENDPOINT_URL points (curlCode: 7)'
    """
    text = first_line(error)
    if scheme in _KEYS and any(place in text for place in _METADATA):
        return f"no keys are found: set {_KEYS[scheme]} ({text})"
    if scheme == "s3" and any(sign in text for sign in _NOT_REACHED):
        if endpoint:
            return f"nothing answers at {endpoint}, where AWS_ENDPOINT_URL points ({text})"
        return f"S3 is not reached from here (another storage: set AWS_ENDPOINT_URL) ({text})"
    return text
