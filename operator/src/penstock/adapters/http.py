"""HTTP requests to things that may be slow, broken or hostile: bounded in time and size, errors in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

_CHUNK = 65_536


class NoAnswer(Exception):  # noqa: N818
    """No usable answer; the message says why."""


class TooLarge(NoAnswer):
    """There was an answer, above the limit."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask. `form` makes it a POST of a form."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] | None = None
    seconds: float = 5.0
    """For the whole exchange."""
    limit: int = 4 << 20
    """Bytes of the body after decompression."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Any HTTP answer that is no redirect."""

    status: int
    body: bytes


async def exchange(session: aiohttp.ClientSession, request: Request) -> Answer:
    """Ask. NoAnswer where nothing came, it came too late, or it was too large."""
    timeout = aiohttp.ClientTimeout(total=request.seconds, sock_connect=min(request.seconds, 5.0))
    try:
        async with session.request(
            "GET" if request.form is None else "POST",
            request.url,
            headers=request.headers,
            data=request.form,
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            if 300 <= response.status < 400:
                raise NoAnswer(f"it redirects to {response.headers.get('Location', 'nowhere')}; use that URL")
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > request.limit:
                    raise TooLarge(f"the answer is larger than {request.limit >> 20} MiB")
            return Answer(response.status, bytes(body))
    except TimeoutError as exc:
        raise NoAnswer(f"no answer within {request.seconds:g} s") from exc
    except aiohttp.ClientConnectorDNSError as exc:
        raise NoAnswer(f"there is no host {exc.host}") from exc
    except aiohttp.ClientConnectorCertificateError as exc:
        raise NoAnswer(f"its certificate is not trusted: {exc.certificate_error}") from exc
    except aiohttp.ClientConnectorError as exc:
        raise NoAnswer(f"no connection: {exc.os_error.strerror or exc.os_error}") from exc
    except aiohttp.InvalidURL as exc:
        raise NoAnswer(f"not a URL: {exc}") from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise NoAnswer(f"the connection broke: {exc or type(exc).__name__}") from exc


def host(ip: str) -> str:
    """An address as it stands in a URL."""
    return f"[{ip}]" if ":" in ip else ip
