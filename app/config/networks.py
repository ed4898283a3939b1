"""Lists of addresses and networks as people write them."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network, summarize_address_range
from typing import Any

Network = IPv4Network | IPv6Network

MOST_SUGGESTED = 8
"""Networks that an error suggests instead of a range; more are no help."""


def split(value: Any) -> Any:
    """The parts of a text, separated by commas or white space."""
    return [part for part in re.split(r"[\s,]+", value) if part] if isinstance(value, str) else value


def read_networks(value: Any) -> tuple[Any, ...]:
    """Networks from addresses and CIDRs, separated by commas or white space.

    Raises:
        ValueError: a part is neither; the message says what to write instead.
    """
    return tuple(_network(part) if isinstance(part, str) else part for part in split(value))


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(_what_to_write(text)) from None
    if network.network_address.is_unspecified and network.prefixlen == network.max_prefixlen:
        raise ValueError(f"{network.network_address} is nobody's address: everybody is {network.network_address}/0")
    return network


def _what_to_write(text: str) -> str:
    """Quotes only what has been understood as addresses."""
    try:
        one = ip_interface(text)
        return f"{one} is an address within a network: write {one.ip} or {one.network}"
    except ValueError:
        pass
    try:
        first, last = map(ip_address, text.split("-"))
        networks = list(summarize_address_range(first, last))
        if len(networks) <= MOST_SUGGESTED:
            return f"{first}-{last} is a range: write {', '.join(map(str, networks))}"
    except (ValueError, TypeError):
        pass
    return "write addresses or CIDRs such as 10.0.0.0/8, separated by commas"
