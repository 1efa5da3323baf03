"""A URL that may hold credentials, as people may see it, and texts without them."""

from __future__ import annotations

from urllib.parse import quote, unquote, unquote_plus

__all__ = ["SecretPlace"]

_HIDDEN = "***"
_LEAST = 4
"""Characters of a query's value that may be a secret: a shorter one, such as a version, stands in any text."""


class SecretPlace:
    """A place by its URL.

    Parameters
    ----------
    url : str
        Such as `ftp://user:password@host/folder?key=secret`. What stands before its last `@` counts as credentials,
        and so do the query's values and the fragment.

    Examples
    --------
    >>> place = SecretPlace("ftp://me:s3cr%65t@host/folder?sig=abcd")
    >>> place.shown
    'ftp://host/folder'
    >>> place.kept_out_of("ftp://me:s3cr%65t@host/folder?sig=abcd says no to s3cret")
    'ftp://host/folder says no to ***'
    """

    def __init__(self, url: str) -> None:
        bare, _, query = url.partition("?")
        bare, _, fragment = bare.partition("#")
        query, _, other_fragment = query.partition("#")
        protocol, slashes, rest = bare.partition("//")
        user, _, host = rest.rpartition("@")
        self.shown = protocol + slashes + host
        values = [value for pair in query.split("&") if len(value := pair.partition("=")[2]) >= _LEAST]
        pieces = [user, user.partition(":")[2], query, fragment, other_fragment, *values]
        secrets = {form for piece in pieces if piece for form in _forms(piece)}
        self._whole = url
        self._secrets = sorted(secrets, key=len, reverse=True)

    def kept_out_of(self, text: str) -> str:
        """Return a text in which no form of the credentials stands."""
        text = text.replace(self._whole, self.shown)
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def _forms(piece: str) -> set[str]:
    meant = {piece, unquote(piece), unquote_plus(piece)}
    return meant | {quote(one, safe="") for one in meant} | {quote(one) for one in meant}
