"""Requests out of the bytes of one connection: HTTP/1.1 as llhttp reads it, within limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import httptools

from triptych.serve.gateway import Gateway
from triptych.serve.http.exchange import Client, Exchange
from triptych.serve.http.request_head import HOST, flaw_of, path_of, without_offer

MAX_HEADER_BYTES = 64 * 1024  # also of whatever else is neither header nor body: trailers, chunk extensions
TOO_LONG = f"is larger than {MAX_HEADER_BYTES} bytes"


class NoRequest(Exception):
    """What came is no request, or no end of one: why, and the status that says so."""

    def __init__(self, status: int, flaw: str) -> None:
        super().__init__(flaw)
        self.status, self.flaw = status, flaw


class RequestReader:
    """Reads requests; each is an exchange of `client` once its header is here, and its body follows.

    Args:
        on_request: called with each.

    Attributes:
        begun: whether a header is arriving.
        reading: the exchange whose header is here, and whose body is not yet.
    """

    def __init__(self, gateway: Gateway, client: Client, on_request: Callable[[Exchange], None]) -> None:
        self.begun = False
        self.reading: Exchange | None = None
        self._gateway, self._client, self._on_request = gateway, client, on_request
        self._parser = httptools.HttpRequestParser(self)
        self._status, self._flaw = 400, "is not HTTP/1.1"
        self._unused = 0  # bytes that came since a header, a body, or a part of one was whole
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises: NoRequest; what comes later cannot be read either.
        """
        self._unused += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            raise NoRequest(self._status, self._flaw) from error
        if self._unused > MAX_HEADER_BYTES:
            raise NoRequest(431, TOO_LONG)

    def _parse(self, data: bytes) -> None:
        """Have llhttp read; nothing is offered to upgrade to: a request that asks for it is read without."""
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                parser, self._parser = self._parser, httptools.HttpRequestParser(self)
                version = parser.get_http_version()
                head = without_offer(parser.get_method(), self._url, version, self._headers)
                data = head + data[offer.args[0] :]

    # What the parser calls

    def on_message_begin(self) -> None:
        """A header begins to arrive."""
        self.begun = True
        self._url, self._headers, self._header_bytes = b"", {}, 0

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url
        self._header_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field; one that comes again is a list (RFC 9110, 5.3). Those behind the body are not read."""
        if not self.begun:
            return
        self._header_bytes += len(name) + len(value) + 4  # ": " and the end of the line
        self._check_size()
        name = name.lower()
        before = self._headers.get(name)
        if before is not None and name == HOST:
            self._refuse("has two Hosts")
        self._headers[name] = value if before is None else b"%b, %b" % (before, value)

    def on_headers_complete(self) -> None:
        """The header is here: the exchange begins."""
        parser = self._parser
        method = parser.get_method().decode("ascii")
        if parser.should_upgrade():
            if method == "CONNECT":
                self._refuse("asks for a tunnel")
            return  # it is read once more, without that
        self._check_size()
        self.begun, self._unused = False, 0
        version = parser.get_http_version()
        if flaw := flaw_of(version, self._headers):
            self._refuse(flaw)
        exchange = Exchange(self._gateway, self._client, method, path_of(self._url), self._headers)
        exchange.is_chunkable = version != "1.0"
        exchange.keep_alive = exchange.is_chunkable and parser.should_keep_alive()
        self.reading = exchange
        self._on_request(exchange)

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self._unused = 0
        if self.reading is not None:
            self.reading.feed(part)

    def on_message_complete(self) -> None:
        """The body is here."""
        if self.reading is not None:
            self._unused = 0
            exchange, self.reading = self.reading, None
            exchange.feed_end()

    def _check_size(self) -> None:
        if self._header_bytes > MAX_HEADER_BYTES:
            self._status = 431
            self._refuse(TOO_LONG)

    def _refuse(self, flaw: str) -> NoReturn:
        """End the parser's run: what it has read is no request."""
        self._flaw = flaw
        raise ValueError(flaw)
