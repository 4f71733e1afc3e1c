"""Models are read from the open network, not from the cluster's or the cloud's inside."""

from __future__ import annotations

import ipaddress

import pytest

from tailwise.models.addresses import AddressPolicy, resolve
from tailwise.models.errors import AddressRefused, ModelUnreachable

REFUSED = [
    "127.0.0.1",
    "::1",
    "10.96.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "fe80::1",
    "fd00:ec2::254",
    "fc00::1",
    "224.0.0.251",
    "ff02::1",
    "0.0.0.0",  # noqa: S104 -- refused, not bound to
    "::",
    "255.255.255.255",
    "168.63.129.16",
    "100.100.100.200",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("address", REFUSED)
def test_inner_addresses_are_refused(address: str) -> None:
    assert AddressPolicy().refusal(ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize("address", ["1.1.1.1", "140.82.112.3", "2606:4700:4700::1111"])
def test_global_addresses_are_let_through(address: str) -> None:
    assert AddressPolicy().refusal(ipaddress.ip_address(address)) is None


def test_an_allowed_network_is_let_through_and_no_other() -> None:
    policy = AddressPolicy(allowed_networks=(ipaddress.ip_network("10.1.0.0/16"),))
    assert policy.refusal(ipaddress.ip_address("10.1.2.3")) is None
    assert policy.refusal(ipaddress.ip_address("10.2.2.3")) is not None


def test_a_refused_network_is_refused_though_it_is_global() -> None:
    policy = AddressPolicy(refused_networks=(ipaddress.ip_network("34.118.224.0/20"),))
    assert policy.refusal(ipaddress.ip_address("34.118.225.1")) is not None


def test_local_addresses_never_include_link_local_ones() -> None:
    policy = AddressPolicy(allow_local=True)
    assert policy.refusal(ipaddress.ip_address("127.0.0.1")) is None
    assert policy.refusal(ipaddress.ip_address("192.168.1.1")) is None
    assert policy.refusal(ipaddress.ip_address("169.254.169.254")) is not None


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
def test_other_spellings_of_loopback_are_refused(host: str) -> None:
    with pytest.raises((AddressRefused, ModelUnreachable)):
        resolve(host, 80, AddressPolicy())


def test_an_unknown_name_says_so() -> None:
    with pytest.raises(ModelUnreachable, match="resolved"):
        resolve("no-such-host.invalid", 443, AddressPolicy())
