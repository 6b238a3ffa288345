"""Fetches an image from a URL that a stranger wrote, without letting the stranger look around in our network.

The name is resolved here, every address it has is checked, and the connection goes to the very address that was
checked; TLS and the Host header still see the name. Each redirect is checked the same way. Bytes, time and types are
bounded. Knows addresses and HTTP; knows no requests of ours.
"""

import asyncio
import functools
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore
import httpx
from PIL import Image

from fusionvl.processing.image_loading import FORMATS
from fusionvl.serve.errors import ApiError
from fusionvl.serve.settings import Limits

_LOG = logging.getLogger("fusionvl.serve")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]

Image.init()  # PIL's formats tell their types once they are all registered
# Of what may be decoded, and as sites write two kinds of PPM; what the bytes are is looked at later.
IMAGE_TYPES = (*(Image.MIME[kind] for kind in FORMATS), "image/x-portable-graymap", "image/x-portable-pixmap")
_REDIRECTS = (301, 302, 303, 307, 308)
# Addresses that clouds answer their own machines at; never, not even where private networks are allowed. Link-local
# ones (169.254.169.254 among them) are refused as such.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Set aside for special purposes, and global for some releases of Python.
_RESERVED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "3fff::/20", "5f00::/16")))
# Names whose servers do not answer hold threads; they must not be those that everything else runs in.
_NAMES = ThreadPoolExecutor(8, "names")


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them."""
    look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_NAMES, look_up)
    return [str(entry[4][0]) for entry in found]


def is_allowed(text: str, allow_private: bool) -> bool:
    """Whether a connection to this address may be made.

    Args:
        text: An IPv4 or IPv6 address.
        allow_private: Whether private and loopback addresses may be.
    """
    return all(_is_allowed(address, allow_private) for address in _all_meanings(text))


def _all_meanings(text: str) -> Iterable[Address]:
    """The address, and the IPv4 address it is another way of writing, or a tunnel to."""
    address = ipaddress.ip_address(text.split("%")[0])
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        yield from (found for found in inner if found is not None)


def _is_allowed(address: Address, allow_private: bool) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped is not None or address in _NAT64):
        return True  # the IPv4 address inside is looked at
    if address in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if any(address in network for network in _RESERVED):
        return False
    if allow_private and (address.is_private or address.is_loopback):
        return True
    return address.is_global and not address.is_reserved


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that passed the check, and to no other."""

    def __init__(self, resolver: Resolver, allow_private: bool) -> None:
        self._network = httpcore.AnyIOBackend()
        self._resolver = resolver
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolver(host.strip("[]"), port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name has no address") from error
        if not addresses or not all(is_allowed(address, self._allow_private) for address in addresses):
            raise ApiError("image_url_forbidden", f"{host} is not a public address: send the image itself")
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue  # a machine without IPv6 cannot reach a name's first address: the next is tried
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


class ImageFetcher:
    """Fetches images by URL.

    Args:
        limits: Bytes, time and redirects.
        allow_private: Whether URLs may lead to private and loopback addresses: for an intranet.
        resolver: Finds a name's addresses.
        trust: Whom TLS trusts; None is the usual authorities.
    """

    def __init__(
        self,
        limits: Limits,
        allow_private: bool = False,
        resolver: Resolver = resolve,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.fetches)
        self._network = _CheckedNetwork(resolver, allow_private)
        self._trust = trust or httpx.create_ssl_context()

    async def fetch(self, url: str) -> bytes:
        """The bytes of an image.

        Raises:
            ApiError: When the URL may not be fetched, cannot be, takes too long, or is not an image.
        """
        try:
            async with self._turns, asyncio.timeout(self._limits.fetch_seconds), self._pool() as pool:
                return await self._follow(pool, _checked(url))
        except TimeoutError:
            raise ApiError(
                "image_url_too_slow", f"The image did not come within {self._limits.fetch_seconds:g} seconds"
            ) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            _LOG.info("An image was not fetched: %s: %s", type(error).__name__, error)
            sentence = "The image's server does not answer as it should: send the image itself"
            raise ApiError("image_url_unreachable", sentence) from error

    def _pool(self) -> httpcore.AsyncConnectionPool:
        """One of its own for each request: a connection that was checked for one is not used by another."""
        return httpcore.AsyncConnectionPool(ssl_context=self._trust, network_backend=self._network, max_connections=1)

    async def _follow(self, pool: httpcore.AsyncConnectionPool, url: httpx.URL) -> bytes:
        for _ in range(self._limits.fetch_redirects + 1):
            raw = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
            headers = [
                ("Host", url.netloc.decode()),
                ("Accept", ", ".join(IMAGE_TYPES)),
                ("Accept-Encoding", "identity"),  # a small body must not become a large one
                ("User-Agent", "fusionvl"),
            ]
            async with pool.stream("GET", raw, headers=headers) as response:
                if response.status not in _REDIRECTS:
                    return await self._read(response)
                target = _header(response, b"location")
            url = _checked(target, url)
        raise ApiError("image_url_unreachable", f"The URL redirects more than {self._limits.fetch_redirects} times")

    async def _read(self, response: httpcore.Response) -> bytes:
        if response.status != 200:
            raise ApiError("image_url_unreachable", f"The image's server answered with status {response.status}")
        kind = _header(response, b"content-type").partition(";")[0].strip().lower()
        if kind not in IMAGE_TYPES or _header(response, b"content-encoding").lower() not in ("", "identity"):
            raise ApiError("image_type_unsupported", f"The URL is no image: use one of {', '.join(IMAGE_TYPES)}")
        bound = self._limits.image_bytes
        content = bytearray()
        async for chunk in response.aiter_stream():
            content += chunk
            if len(content) > bound:
                raise ApiError("image_too_large", f"The image at the URL has more than {bound} bytes")
        return bytes(content)


def _header(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _checked(text: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = httpx.URL(text) if base is None else base.join(text)
        has_host = bool(url.host)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise ApiError("image_url_forbidden", "The image's URL is no valid URL") from error
    if url.scheme not in ("http", "https") or not has_host:
        raise ApiError("image_url_forbidden", "Image URLs begin with http:// or https:// and name a host")
    if url.userinfo:
        raise ApiError("image_url_forbidden", "Image URLs hold no user name and no password")
    return url
