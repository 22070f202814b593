"""A corpus of hostile URLs and addresses, and the good ones that must still pass."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barnabas.domain.targets import BadTargetError, Target, parse_target, refusal

# First, last and a middle address of every range that must be refused, and the clouds' platform addresses.
HOSTILE_ADDRESSES = {
    "0.0.0.0": "unspecified",
    "0.255.255.255": "unspecified",
    "10.0.0.0": "private",
    "10.255.255.255": "private",
    "100.64.0.0": "shared",
    "100.100.100.200": "shared",  # Alibaba metadata
    "100.127.255.255": "shared",
    "127.0.0.1": "loopback",
    "127.255.255.255": "loopback",
    "168.63.129.16": "platform",  # Azure
    "169.254.0.0": "link_local",
    "169.254.169.254": "link_local",  # metadata of most clouds
    "169.254.170.2": "link_local",  # container credentials
    "172.16.0.0": "private",
    "172.31.255.255": "private",
    "192.0.0.0": "reserved",
    "192.0.0.8": "reserved",
    "192.0.0.192": "reserved",  # Oracle metadata
    "192.0.2.1": "documentation",
    "192.88.99.1": "embedded_ipv4",
    "192.168.0.0": "private",
    "192.168.255.255": "private",
    "198.18.0.0": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.0": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "embedded_ipv4",
    "::127.0.0.1": "embedded_ipv4",
    "::ffff:127.0.0.1": "embedded_ipv4",
    "::ffff:8.8.8.8": "embedded_ipv4",
    "::ffff:0:7f00:1": "embedded_ipv4",
    "::5efe:7f00:1": "embedded_ipv4",
    "64:ff9b::7f00:1": "embedded_ipv4",
    "64:ff9b::808:808": "embedded_ipv4",
    "64:ff9b:1::1": "embedded_ipv4",
    "100::1": "not_global",
    "2001::1": "reserved",
    "2001:0:53aa:64c:0:0:80ff:fffe": "reserved",  # Teredo
    "2001:2::1": "reserved",
    "2001:10::1": "reserved",
    "2001:20::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:7f00:1::1": "embedded_ipv4",
    "2002:a9fe:a9fe::": "embedded_ipv4",
    "3fff::1": "documentation",
    "4000::1": "not_global",
    "5f00::1": "not_global",
    "fc00::1": "private",
    "fd00:ec2::254": "private",  # AWS metadata
    "fe80::1": "link_local",
    "fe80::1%eth0": "scoped",
    "2606:4700::1%1": "scoped",
    "febf::1": "link_local",
    "fec0::1": "private",
    "feff::1": "private",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
}
GOOD_ADDRESSES = (
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "3ffe::1",
)
NOT_ADDRESSES = (
    "",
    "localhost",
    "1.2.3",
    "1.2.3.4.5",
    "0177.0.0.1",
    "0x7f.1",
    "2130706433",
    ":::",
    "1.2.3.4 ",
    "[::1]",
)

HOSTILE_URLS = {
    # schemes
    "": "not_a_url",
    "example.com": "not_a_url",
    "//example.com/": "not_a_url",
    "https:/example.com/": "not_a_url",
    "https:example.com": "not_a_url",
    "javascript:alert(1)": "not_a_url",
    "file:///etc/passwd": "bad_scheme",
    "gopher://example.com:70/": "bad_scheme",
    "ftp://example.com/": "bad_scheme",
    "unix:///var/run/docker.sock": "bad_scheme",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/": "bad_scheme",
    "ws://example.com/": "bad_scheme",
    "dict://127.0.0.1:11211/": "bad_scheme",
    # user information
    "https://user@example.com/": "userinfo",
    "https://user:password@example.com/": "userinfo",
    "https://example.com@127.0.0.1/": "userinfo",
    "https://127.0.0.1:80@example.com/": "userinfo",
    "https://example.com%40@127.0.0.1/": "userinfo",
    "https://@example.com/": "userinfo",
    "https://[::1]@example.com/": "userinfo",
    # hosts that are none
    "https://": "empty_host",
    "https:///path": "empty_host",
    "https://:443/": "empty_host",
    "https://?query": "empty_host",
    "https://#fragment": "empty_host",
    "https://.": "trailing_dot",
    "https://example.com./": "trailing_dot",
    "https://127.0.0.1./": "trailing_dot",
    "https://localhost./": "trailing_dot",
    "https://.example.com/": "bad_host",
    "https://example..com/": "bad_host",
    "https://-example.com/": "bad_host",
    "https://example-.com/": "bad_host",
    "https://exa%6dple.com/": "bad_host",
    "https://127.0.0.1%2f.example.com/": "bad_host",
    "https://example.com%00.internal/": "bad_host",
    "https://*.example.com/": "bad_host",
    "https://exam$ple.com/": "bad_host",
    f"https://{'a' * 64}.com/": "bad_host",
    f"https://{'a.' * 127}com/": "bad_host",
    "https://[::1/": "bad_host",
    "https://::1/": "empty_host",
    "https://[]/": "bad_host",
    "https://[v1.a]/": "bad_host",
    "https://[127.0.0.1]/": "bad_host",
    "https://[example.com]/": "bad_host",
    "https://[::1]example.com/": "bad_host",
    "https://[[::1]]/": "bad_host",
    # names inside a network
    "https://localhost/": "private_name",
    "https://LOCALHOST/": "private_name",
    "https://foo.localhost/": "private_name",
    "https://metadata/": "private_name",
    "https://metadata.google.internal/": "private_name",
    "https://printer.local/": "private_name",
    "https://router.home.arpa/": "private_name",
    "https://kubernetes.default.svc.cluster.local/": "private_name",
    # IPv4 in every spelling that some parser takes
    "https://127.0.0.1/": "loopback_address",
    "https://127.1/": "ambiguous_address",
    "https://127.0.1/": "ambiguous_address",
    "https://0/": "ambiguous_address",
    "https://2130706433/": "ambiguous_address",
    "https://017700000001/": "ambiguous_address",
    "https://0177.0.0.1/": "ambiguous_address",
    "https://0177.0.0.01/": "ambiguous_address",
    "https://0x7f000001/": "ambiguous_address",
    "https://0x7f.0.0.1/": "ambiguous_address",
    "https://0X7F.0X0.0X0.0X1/": "ambiguous_address",
    "https://127.0.0.0x1/": "ambiguous_address",
    "https://0x/": "ambiguous_address",
    "https://256.256.256.256/": "ambiguous_address",
    "https://4294967296/": "ambiguous_address",
    "https://1.2.3.4.5/": "ambiguous_address",
    "https://example.com.1/": "ambiguous_address",
    "https://010.8.8.8/": "ambiguous_address",
    "https://10.0.0.1/": "private_address",
    "https://169.254.169.254/latest/meta-data/": "link_local_address",
    "https://168.63.129.16/": "platform_address",
    "https://0.0.0.0/": "unspecified_address",
    "https://255.255.255.255/": "reserved_address",
    # IPv6
    "https://[::1]/": "loopback_address",
    "https://[0:0:0:0:0:0:0:1]/": "loopback_address",
    "https://[::]/": "unspecified_address",
    "https://[::ffff:127.0.0.1]/": "embedded_ipv4_address",
    "https://[::FFFF:7F00:1]/": "embedded_ipv4_address",
    "https://[64:ff9b::169.254.169.254]/": "embedded_ipv4_address",
    "https://[2002:a9fe:a9fe::]/": "embedded_ipv4_address",
    "https://[fd00:ec2::254]/": "private_address",
    "https://[fe80::1]/": "link_local_address",
    "https://[fe80::1%25eth0]/": "scoped_address",
    "https://[fe80::1%eth0]/": "scoped_address",
    "https://[2606:4700::1%25lo]/": "scoped_address",
    "https://[ff02::1]/": "multicast_address",
    # ports
    "https://example.com:/": "bad_port",
    "https://example.com:0/": "bad_port",
    "https://example.com:65536/": "bad_port",
    "https://example.com:99999999999999999999/": "bad_port",
    "https://example.com:-1/": "bad_port",
    "https://example.com:+443/": "bad_port",
    "https://example.com:0443/": "bad_port",
    "https://example.com:443:80/": "bad_port",
    "https://example.com:4a3/": "bad_port",
    "https://example.com:22/": "port_refused",
    "https://example.com:6379/": "port_refused",
    "https://example.com:25/": "port_refused",
    # characters
    "https://example.com\\@127.0.0.1/": "bad_character",
    "https:\\\\example.com/": "bad_character",
    "https://example.com/\r\nHost: internal": "bad_character",
    "https://example.com/\tpath": "bad_character",
    "https://exam\tple.com/": "bad_character",
    " https://example.com/": "bad_character",
    "https://example.com/ ": "bad_character",
    "https://exa mple.com/": "bad_character",
    "https://example.com/\x00": "bad_character",
    "https://example.com/\x7f": "bad_character",
    "https://127\u30020\u30020\u30021/": "bad_character",  # ideographic full stop
    "https://127\uff0e0\uff0e0\uff0e1/": "bad_character",  # full-width full stop
    "https://\u2460\u2461\u2466.0.0.1/": "bad_character",  # circled digits
    "https://\uff11\uff12\uff17.0.0.1/": "bad_character",  # full-width digits
    "https://exa\u200bmple.com/": "bad_character",
    "https://ex\u0430mple.com/": "bad_character",  # Cyrillic a
    "https://\u212aelvin.com/": "bad_character",
    "https://example.com/\u2028": "bad_character",
    "https://example.com/\ud800": "bad_character",
    "https://example.com/" + "a" * 2048: "too_long",
}

GOOD_URLS = {
    "https://example.com": ("https", "example.com", 443, "/"),
    "https://example.com/": ("https", "example.com", 443, "/"),
    "HTTPS://EXAMPLE.com/Hook": ("https", "example.com", 443, "/Hook"),
    "http://example.com/hook?a=b&c=@d": ("http", "example.com", 80, "/hook?a=b&c=@d"),
    "https://example.com?x=1": ("https", "example.com", 443, "/?x=1"),
    "https://example.com:8443/a/../b": ("https", "example.com", 8443, "/a/../b"),
    "https://example.com/hook#part": ("https", "example.com", 443, "/hook"),
    "https://xn--bcher-kva.example/%20": ("https", "xn--bcher-kva.example", 443, "/%20"),
    "https://a_b.example.com/": ("https", "a_b.example.com", 443, "/"),
    "https://1e100.net/": ("https", "1e100.net", 443, "/"),
    "https://10.example.com/": ("https", "10.example.com", 443, "/"),
    "https://8.8.8.8/": ("https", "8.8.8.8", 443, "/"),
    "http://[2606:4700::1111]:8443/": ("http", "2606:4700::1111", 8443, "/"),
}


def test_the_corpus_is_large_enough_to_mean_something() -> None:
    assert len(HOSTILE_URLS) + len(HOSTILE_ADDRESSES) >= 150


@pytest.mark.parametrize(("address", "reason"), HOSTILE_ADDRESSES.items())
def test_a_hostile_address_is_refused(address: str, reason: str) -> None:
    assert refusal(address) == reason


@pytest.mark.parametrize("address", GOOD_ADDRESSES)
def test_a_public_address_next_to_a_refused_range_passes(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("address", NOT_ADDRESSES)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_is_no_address_is_refused(address: str, allow_private: bool) -> None:
    assert refusal(address, allow_private=allow_private) == "not_an_address"


@pytest.mark.parametrize(("url", "reason"), HOSTILE_URLS.items())
def test_a_hostile_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(BadTargetError) as refused:
        parse_target(url, allow_private=False)

    assert (refused.value.reason, refused.value.code) == (reason, "bad_target")


@pytest.mark.parametrize(("url", "parts"), GOOD_URLS.items())
def test_a_public_url_passes(url: str, parts: tuple[str, str, int, str]) -> None:
    target = parse_target(url, allow_private=False)

    assert (target.scheme, target.host, target.port, target.path) == parts
    assert parse_target(target.url, allow_private=False) == target


def test_the_authority_is_what_the_host_header_says() -> None:
    def authority(url: str) -> str:
        return parse_target(url, allow_private=True).authority

    assert authority("https://Example.com:443/x") == "example.com"
    assert authority("http://example.com:443/x") == "example.com:443"
    assert authority("http://[::1]:9000/") == "[::1]:9000"


@pytest.mark.parametrize(
    ("url", "is_address"),
    [
        ("http://localhost:9000/hook", False),
        ("http://receiver:8000/", False),
        ("http://host.docker.internal:1234/", False),
        ("http://127.0.0.1:9000/", True),
        ("http://[::1]:9000/", True),
        ("http://192.168.1.4/", True),
        ("http://172.17.0.1:65535/", True),
        ("http://[fd12::1]/", True),
    ],
)
def test_development_lets_loopback_private_networks_and_any_port_through(url: str, is_address: bool) -> None:
    assert parse_target(url, allow_private=True).is_address == is_address
    with pytest.raises(BadTargetError):
        parse_target(url, allow_private=False)


DEVELOPMENT_REASONS = {"loopback_address", "private_address", "shared_address", "private_name", "port_refused"}


@pytest.mark.parametrize("url", [url for url, reason in HOSTILE_URLS.items() if reason not in DEVELOPMENT_REASONS])
def test_development_lets_nothing_else_through(url: str) -> None:
    with pytest.raises(BadTargetError):
        parse_target(url, allow_private=True)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1"])
def test_development_never_reaches_metadata_multicast_or_odd_spellings(address: str) -> None:
    assert refusal(address, allow_private=True) is not None


@given(st.ip_addresses())
def test_no_address_that_is_not_global_passes(address: IPv4Address | IPv6Address) -> None:
    if refusal(str(address)) is None:
        assert address.is_global
        assert not address.is_multicast
        assert isinstance(address, IPv4Address) or address in IPv6Network("2000::/3")


@given(
    st.sampled_from(["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16", "100.64.0.0/10"]),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::"]),
)
def test_an_internal_ipv4_address_cannot_hide_in_an_ipv6_one(network: str, at: int, prefix: str) -> None:
    inside = IPv4Network(network)
    hidden = inside[at % inside.num_addresses]

    assert refusal(str(hidden)) is not None
    assert refusal(str(IPv6Address(int(IPv6Address(prefix)) + int(hidden)))) is not None
    assert refusal(str(IPv6Address((0x2002 << 112) | (int(hidden) << 80)))) is not None


url_characters = st.text(st.sampled_from("abx0127.:/@\\?#[]%- \tf\u3002"), max_size=30)


@given(url_characters, st.booleans())
def test_any_text_is_refused_or_read_as_the_standard_library_reads_it(text: str, allow_private: bool) -> None:
    url = f"http://{text}"
    try:
        target = parse_target(url, allow_private=allow_private)
    except BadTargetError:
        return

    other = urlsplit(url)
    assert isinstance(target, Target)
    assert other.username is None
    assert (other.port or 80) == target.port
    assert other.hostname is not None
    if target.is_address:
        assert refusal(target.host, allow_private=allow_private) is None
    else:
        assert other.hostname == target.host
