"""An archive from a web server, for `import`."""

from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urlsplit

from barque.base.errors import InvalidInputError
from barque.distribution.errors import TransportError
from barque.distribution.progress import Progress
from barque.distribution.settings import Settings
from barque.distribution.transport import Calls, Transport


def whole_url(source: str) -> str:
    """Return the URL that a user means; HTTP where no scheme is given.

    Raises:
        InvalidInputError: it is no URL of HTTP.
    """
    url = source if "://" in source else f"http://{source}"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises where it is no number
    except ValueError as error:
        raise InvalidInputError(f"parse {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInputError(f'Get "{url}": unsupported protocol scheme "{parts.scheme}"')
    if not url.isprintable() or " " in url:
        raise InvalidInputError(f"parse {url!r}: invalid character in URL")
    return url


def chunks(settings: Settings, url: str, calls: Calls, progress: Progress) -> Iterator[bytes]:
    """Yield the bytes behind a URL.

    Raises:
        TransportError: no answer, one of an error, or it broke off.
    """
    transport = Transport(settings, calls)
    try:
        answer = transport.request("GET", url, {"Accept-Encoding": "identity"})
        if answer.status != 200:
            answer.close()
            phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else ""
            raise TransportError(f"failed to GET {url} with status {answer.status} {phrase}".rstrip())
        progress.message(f"Downloading from {url}")
        done, total = 0, answer.length or 0
        for data in answer.pieces():
            done += len(data)
            progress.bar("", "Importing", done, total)
            yield data
    finally:
        transport.close()
