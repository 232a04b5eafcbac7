"""Where a registry's domain is reached: mirrors first, then itself; and what each may be trusted by."""

import os
import ssl
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.distribution.settings import HUB, HUB_REGISTRY, Settings, is_insecure
from barque.distribution.transport import Transport


class Endpoint(NamedTuple):
    """A registry's base URL; a mirror is only read from."""

    url: str
    mirror: bool = False

    @property
    def host(self) -> str:
        """Return `host[:port]`."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def secure(self) -> bool:
        """Whether it is reached by TLS."""
        return self.url.startswith("https://")


def endpoints(settings: Settings, domain: str, *, push: bool) -> list[Endpoint]:
    """Return where to look for a domain's repositories, in this order.

    Args:
        settings: mirrors and insecure registries.
        domain: of a reference.
        push: leave mirrors out.
    """
    found = [] if push else [Endpoint(url, mirror=True) for url in settings.mirrors.get(domain, [])]
    if domain == HUB:
        return [*found, Endpoint(f"https://{HUB_REGISTRY}")]
    found.append(Endpoint(f"https://{domain}"))
    if is_insecure(settings, domain):
        found.append(Endpoint(f"http://{domain}"))
    return found


def trust(transport: Transport, settings: Settings, endpoint: Endpoint) -> None:
    """Let the transport use the endpoint's own certificates: the folder of its host below certs.d.

    Raises:
        InvalidInputError: a file in the folder is broken, or half of a pair is missing.
    """
    if not endpoint.secure:
        return
    insecure = is_insecure(settings, endpoint.host)
    folders = [f"{base}/{endpoint.host}" for base in settings.certificates]
    present = [folder for folder in folders if os.path.isdir(folder)]
    if not insecure and not present:
        return
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for folder in present:
        _read_folder(context, folder)
    transport.trust(endpoint.host, context)


def _read_folder(context: ssl.SSLContext, folder: str) -> None:
    names = sorted(os.listdir(folder))
    for name in names:
        path = f"{folder}/{name}"
        if name.endswith(".crt"):
            _load(path, context.load_verify_locations)
        elif name.endswith(".cert"):
            key = name.removesuffix(".cert") + ".key"
            if key not in names:
                raise InvalidInputError(
                    f"missing key {key} for client certificate {name}. CA certificates must use the extension .crt"
                )
            _load(path, partial(context.load_cert_chain, keyfile=f"{folder}/{key}"))
        elif name.endswith(".key") and name.removesuffix(".key") + ".cert" not in names:
            raise InvalidInputError(f"missing client certificate {name.removesuffix('.key')}.cert for key {name}")


def _load(path: str, load: Callable[[str], None]) -> None:
    try:
        load(path)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(f"certificate {path}: {error}") from None
