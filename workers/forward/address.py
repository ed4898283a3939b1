"""Addresses that nothing is ever forwarded to, whatever leads there.

Cloud machines are given their credentials at addresses of their own; a URL, or a name somebody else
controls, must not make Jobhook talk to these. Private networks and loopback are allowed: that is where
internal systems are.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

FORBIDDEN = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # "this network": Linux takes 0.0.0.0 for itself
        "169.254.0.0/16",  # link-local: 169.254.169.254 at AWS, Azure, Google and others, 169.254.170.2 at ECS
        "100.100.100.200/32",  # metadata at Alibaba Cloud
        "168.63.129.16/32",  # the host's services at Azure
        "192.0.0.192/32",  # metadata at Oracle Cloud
        "224.0.0.0/4",  # multicast
        "255.255.255.255/32",
        "::/96",  # unspecified, and IPv4 in its long obsolete form; ::1 is excepted below
        "fe80::/10",  # link-local
        "fd00:ec2::/32",  # metadata at AWS: fd00:ec2::254
        "fd20:ce::254/128",  # metadata at Google Cloud
        "ff00::/8",  # multicast
    )
)
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215


def is_forbidden(text: str) -> bool:
    """Whether an address must not be connected to; False for what is no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if address.is_loopback:
        return False
    return any(form in network for form in (address, *_embedded(address)) for network in FORBIDDEN)


def _embedded(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses to which an IPv6 one may be translated on its way."""
    if isinstance(address, IPv4Address):
        return []
    forms = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _NAT64):
        forms.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [form for form in forms if form is not None]
