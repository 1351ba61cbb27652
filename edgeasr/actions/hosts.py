"""Which hosts a web hook may call: this machine, and those that were named.

A name is looked up for every call, and what was found is checked and then connected to: a name that points elsewhere
after it was checked reaches nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from edgeasr.errors import ActionError, ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NEVER = "link-local, multicast and reserved addresses are never called: give another"


class HostPolicy:
    """This machine, and what was named.

    allowed: names, addresses, and networks such as 192.168.1.0/24
    errors:  ConfigError for what is none of these
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for one in allowed:
            network = _network(one)
            if network is not None and _is_odd(network):
                raise ConfigError(f"got --webhook-allow {one}, and {_NEVER}")
            if network is not None:
                self._networks.append(network)
            elif _is_name(one):
                self._names.add(_plain(one))
            else:
                raise ConfigError(f"got --webhook-allow {one!r}, wanted a host's name, an address or a network")

    def check(self, host: str) -> None:
        """Errors: ConfigError for a host that can be refused without looking it up"""
        address = _address(host)
        if address is not None:
            if not self._permits(host, address):
                raise ConfigError(f"got --webhook to {host}, {_refusal(host)}")
        elif _plain(host) != "localhost" and _plain(host) not in self._names and not self._networks:
            raise ConfigError(f"got --webhook to {host}, {_refusal(host)}")

    def addresses(self, host: str, port: int) -> list[Address]:
        """Where the host is now. errors: ActionError where it is not found, or any of its addresses is not permitted"""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ActionError(f"the host {host} is not found ({error})", again=True) from error
        addresses = list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
        for address in addresses:
            if not self._permits(host, address):
                raise ActionError(f"the host {host} is at {address}, {_refusal(str(address))}", again=True)
        return addresses

    def _permits(self, host: str, address: Address) -> bool:
        address = _unmapped(address)
        if address.is_loopback or _is_odd(address):
            return address.is_loopback
        return _plain(host) in self._names or any(address in network for network in self._networks)


def _unmapped(address: Address) -> Address:
    """The address of IPv4 that one of IPv6 stands for."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_odd(one: Address | Network) -> bool:
    """Whether nothing may lead there: 169.254.169.254 and its like hand out the keys of rented machines."""
    return one.is_link_local or one.is_multicast or one.is_unspecified or one.is_reserved


def _refusal(host: str) -> str:
    """The rest of a message about it."""
    address = _address(host)
    if address is not None and _is_odd(_unmapped(address)):
        return f"and {_NEVER}"
    return f"wanted a host on this machine, or one that is named: add --webhook-allow {host}"


def _plain(name: str) -> str:
    return name.casefold().rstrip(".")


def _is_name(text: str) -> bool:
    return bool(text) and all(char.isalnum() or char in "-._" for char in text)


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
