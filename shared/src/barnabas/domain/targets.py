"""Which addresses a webhook may be sent to.

`parse_target` judges the URL's text, `refusal` every address that its name resolves to, at creation and again at each
try. The lists are our own: `ipaddress.is_global` lets through addresses that must be refused, and changes between
versions. One strict parser, and the caller connects to what it returned: two parsers that disagree are how such checks
are passed by.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from barnabas.errors import RejectedError

URL_CHARACTERS_MAX: Final = 2048
PORTS: Final = frozenset({80, 443, 8443})

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# Source of both lists: the union of what the well-known webhook senders refuse, and the clouds' platform addresses.
_REFUSED_V4: Final = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "platform"),  # Azure's own services, at an address that looks public
        ("169.254.0.0/16", "link_local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "embedded_ipv4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_REFUSED_V6: Final = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        # Inside the global range ...
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "embedded_ipv4"),
        ("3fff::/20", "documentation"),
        # ... and names for the best known outside of it, all of which is refused.
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/8", "embedded_ipv4"),
        ("64:ff9b::/96", "embedded_ipv4"),
        ("64:ff9b:1::/48", "embedded_ipv4"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link_local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
# What a development machine or a container network needs; never the link-local range with its metadata services.
_DEVELOPMENT: Final = frozenset({"loopback", "private", "shared"})

# Names that only mean something inside some network. What they resolve to is judged as well.
_PRIVATE_SUFFIXES: Final = ("localhost", "local", "internal", "home.arpa", "intranet", "lan", "onion")

_SHAPE: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?:#.*)?")
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
# A last label of digits, or of a hexadecimal number, makes a host an IPv4 address for some parsers. Source: WHATWG URL,
# "ends in a number checker".
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class BadTargetError(RejectedError):
    """This URL can't be a webhook's target."""

    code = "bad_target"

    def __init__(self, reason: str, explanation: str) -> None:
        super().__init__(explanation)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a webhook goes, in parts that need no second parser."""

    scheme: str
    host: str
    """Lower case, an IPv6 address without its brackets."""
    port: int
    path: str
    """Path and query as written, at least `/`."""
    is_address: bool
    """The host is a literal address, judged already; else a name whose every address is yet to be judged."""

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL in its one spelling."""
        return f"{self.scheme}://{self.authority}{self.path}"


def refusal(ip: str, *, allow_private: bool = False) -> str | None:
    """Why a connection to that address is refused, as a short stable word; None when it may be made.

    Takes what a resolver answers. `allow_private` is for development: loopback and private networks are let through
    then, metadata services, multicast and the odd spellings still are not.
    """
    try:
        address: IPv4Address | IPv6Address = IPv6Address(ip) if ":" in ip else IPv4Address(ip)
    except AddressValueError:
        return "not_an_address"
    reason = _judge_v4(address) if isinstance(address, IPv4Address) else _judge_v6(address)
    return None if allow_private and reason in _DEVELOPMENT else reason


def parse_target(url: str, *, allow_private: bool) -> Target:
    """The parts of a URL that a webhook may be sent to; raises `BadTargetError`.

    Only http and https, no user, no fragment sent, the host in its plain spelling. Ports 80, 443 and 8443, and any with
    `allow_private`. A literal address is judged here; for a name the caller judges what it resolves to.
    """
    if len(url) > URL_CHARACTERS_MAX:
        raise BadTargetError("too_long", f"a URL has at most {URL_CHARACTERS_MAX} characters")
    # Space, control characters and all beyond ASCII: written out (%20, xn--) they mean the same to every parser.
    if not all("!" <= character <= "~" for character in url):
        raise BadTargetError("bad_character", "a URL has printable ASCII characters only: encode the others")
    # Some parsers read it as a slash, so the host would end elsewhere.
    if "\\" in url:
        raise BadTargetError("bad_character", "a URL has no backslash: encode it as %5C")
    shape = _SHAPE.fullmatch(url)
    if shape is None:
        raise BadTargetError("not_a_url", "not an absolute URL: write https://host/path")
    scheme = shape["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise BadTargetError("bad_scheme", "only http and https are possible")
    if "@" in shape["authority"]:
        raise BadTargetError("userinfo", "a URL has no user or password: use headers")
    authority = _AUTHORITY.fullmatch(shape["authority"])
    if authority is None:
        raise BadTargetError("bad_host", "the host can't be read")
    host, is_address = _host(authority["host"].lower(), allow_private=allow_private)
    port = _port(authority["port"], scheme, allow_private=allow_private)
    rest = shape["rest"]
    path = rest if rest.startswith("/") else f"/{rest}"
    return Target(scheme=scheme, host=host, port=port, path=path, is_address=is_address)


def _host(text: str, *, allow_private: bool) -> tuple[str, bool]:
    if not text:
        raise BadTargetError("empty_host", "the host is missing")
    if text.startswith("["):
        return _address_v6(text[1:-1], allow_private=allow_private), True
    if text.endswith("."):
        raise BadTargetError("trailing_dot", "a host doesn't end in a dot")
    labels = text.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _address_v4(text, allow_private=allow_private), True
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadTargetError("bad_host", "the host is not a domain name")
    if not allow_private and (len(labels) == 1 or any(f".{text}".endswith(f".{name}") for name in _PRIVATE_SUFFIXES)):
        raise BadTargetError("private_name", "the host is a name inside some network, not a public one")
    return text, False


def _address_v6(text: str, *, allow_private: bool) -> str:
    if "%" in text:
        raise BadTargetError("scoped_address", "an address has no zone")
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise BadTargetError("bad_host", "the host is not an IPv6 address") from None
    return _judged(str(address), allow_private=allow_private)


def _address_v4(text: str, *, allow_private: bool) -> str:
    try:
        # Refuses octal, hexadecimal, short and decimal spellings, which resolvers read in different ways.
        address = IPv4Address(text)
    except AddressValueError:
        raise BadTargetError("ambiguous_address", "write an IPv4 address as four decimal numbers") from None
    return _judged(str(address), allow_private=allow_private)


def _judged(address: str, *, allow_private: bool) -> str:
    reason = refusal(address, allow_private=allow_private)
    if reason is not None:
        raise BadTargetError(f"{reason}_address", "the address is not a public one")
    return address


def _port(text: str | None, scheme: str, *, allow_private: bool) -> int:
    if text is None:
        return _DEFAULT_PORTS[scheme]
    if not _PORT.fullmatch(text) or int(text) > 65_535:
        raise BadTargetError("bad_port", "a port is a number from 1 to 65535")
    port = int(text)
    if not allow_private and port not in PORTS:
        raise BadTargetError("port_refused", f"the port is one of {', '.join(str(each) for each in sorted(PORTS))}")
    return port


def _judge_v4(address: IPv4Address) -> str | None:
    return next((reason for network, reason in _REFUSED_V4 if address in network), None)


def _judge_v6(address: IPv6Address) -> str | None:
    if address.scope_id is not None:
        return "scoped"
    known = next((reason for network, reason in _REFUSED_V6 if address in network), None)
    if known is not None or address in _GLOBAL_V6:
        return known
    return "not_global"
