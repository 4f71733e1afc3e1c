"""Which addresses models may be read from.

A workload's URL is written by a tenant, but the operator's pod opens it: without a rule it would fetch
the cloud's metadata service or the cluster's own services on the tenant's behalf. Names are resolved
once, the rule is applied to the addresses, and the connection goes to the very address that passed, so
that a second answer of the DNS cannot change it.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from tailwise.models.errors import AddressRefused, ModelUnreachable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Reachable by global routing, yet services of a cloud provider to its own machines.
_PROVIDER_SERVICES: tuple[Network, ...] = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's wire server
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba's metadata service
    ipaddress.ip_network("fd00:ec2::254/128"),  # AWS's metadata service
)
_TRANSLATION = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Addresses that may be connected to: all that are globally routed, and ``allowed_networks``.

    ``refused_networks`` (a cluster's service and pod ranges where they are public addresses) are refused
    in any case but an allowance. ``allow_local`` opens loopback and private networks, never link-local
    ones, for a user reading models on a machine of their own.
    """

    allowed_networks: tuple[Network, ...] = ()
    refused_networks: tuple[Network, ...] = ()
    allow_local: bool = False

    def refusal(self, address: Address) -> str | None:
        """Why this address is refused, in words, or None when it may be connected to."""
        address = _unwrapped(address)
        if any(address in network for network in self.allowed_networks):
            return None
        if any(address in network for network in _PROVIDER_SERVICES):
            return "a cloud provider's metadata service"
        for network in self.refused_networks:
            if address in network:
                return f"in the refused network {network}"
        kind = _kind(address)
        if kind is None or (self.allow_local and kind in _LOCAL_KINDS):
            return None
        return kind


_LOOPBACK, _PRIVATE = "a loopback address", "a private (cluster) address"
_LOCAL_KINDS = (_LOOPBACK, _PRIVATE)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one: mapped, 6to4 or NAT64 forms reach the same host."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _TRANSLATION:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _kind(address: Address) -> str | None:
    """The special kind of an address in words; None for a globally routed unicast address."""
    if address.is_link_local:
        return "a link-local address (metadata services live there)"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return _LOOPBACK
    if not address.is_global:
        return _PRIVATE
    return None


def resolve(host: str, port: int, policy: AddressPolicy) -> tuple[Address, ...]:
    """The addresses of a host that the policy lets through, in the resolver's order.

    Raises ModelUnreachable when the name has no address, AddressRefused when all of them are refused.
    """
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ModelUnreachable(f"the host {host!r} cannot be resolved ({error}); check its name") from error
    addresses = tuple(dict.fromkeys(ipaddress.ip_address(str(a[4][0]).split("%")[0]) for a in answers))
    permitted = tuple(address for address in addresses if policy.refusal(address) is None)
    if not permitted:
        refused = addresses[0]
        raise AddressRefused(
            f"the host {host!r} is {refused}, {policy.refusal(refused)}: models are not read from there "
            "unless its network is allowed (the operator's --allow-model-network, inspect's --allow-address)"
        )
    return permitted
