"""The address of another server, as a user writes it. Asks nobody."""

import httpx


def server_root(url: str) -> str:
    """The root of a server, from its address or that of its `/v1`.

    Raises:
        ValueError: When it is no address; the message shows it escaped, for it may hold what a terminal obeys.
    """
    root = url.rstrip("/").removesuffix("/v1")
    reason = "it begins with http:// or https:// and names a host"
    try:
        host = httpx.URL(root).host
        host.encode("idna")  # names that DNS cannot have are UnicodeErrors
    except (httpx.InvalidURL, UnicodeError) as error:
        host, reason = "", str(error)
    if not root.startswith(("http://", "https://")) or not host:
        raise ValueError(f"{url!r} is no address of a server: {reason}")
    return root
