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
        "fd00:ec2::/32",  # AWS: fd00:ec2::254 (EC2 user guide, "Access instance metadata"), ::23 for pods of EKS
        "fd20:ce::254/128",  # Google Cloud (Compute Engine, "VM metadata", instances with IPv6 only)
        "fd00:c1::a9fe:a9fe/128",  # Oracle Cloud (its SDK for Python, instance_principals_security_token_signer.py)
        "fd00:42::42/128",  # Scaleway (cloud-init's reference of its data source, which Scaleway maintains)
        "fd00:a9fe:a9fe::1/128",  # Akamai, formerly Linode (cloud-init's reference of its data source)
        "fd00:100::100:200/128",  # Alibaba Cloud (cloud-init's data source AliYun)
        "ff00::/8",  # multicast
    )
)

_TRANSLATED = tuple(
    (ip_network(network), shift)
    for network, shift in (
        # The bits to the right of the IPv4 address in what a network's addresses embed.
        ("::ffff:0:0/96", 0),  # mapped, RFC 4291
        ("::ffff:0:0:0/96", 0),  # SIIT, RFC 2765
        ("64:ff9b::/96", 0),  # NAT64, RFC 6052
        ("2002::/16", 80),  # 6to4, RFC 3056
        ("2001::/32", 64),  # Teredo's server, RFC 4380
    )
)
_LOCAL_NAT64 = ip_network("64:ff9b:1::/48")  # RFC 8215
_TEREDO = ip_network("2001::/32")
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214, 6.1: the first half of the interface identifier
_32_BITS = 0xFFFFFFFF


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
    number = int(address)
    forms = [number >> shift for network, shift in _TRANSLATED if address in network]
    if address in _LOCAL_NAT64:
        forms += _in_local_nat64(number)
    if address in _TEREDO:
        forms.append(~number)  # the client's, with its bits inverted
    if (number >> 32) & _32_BITS in _ISATAP:
        forms.append(number)
    return [IPv4Address(form & _32_BITS) for form in forms]


def _in_local_nat64(number: int) -> list[int]:
    """What an address of RFC 8215's prefix embeds. A translator may use any longer prefix of it (RFC 6052, 2.2).

    Bits 64 to 71 are always zero, and the IPv4 address goes around them. A result in 0.0.0.0/8 comes of
    reading with too short a prefix, and is left out.
    """
    without = (number >> 64 << 56) | (number & (1 << 56) - 1)  # 120 bits
    forms = [(without >> (120 - prefix - 32)) & _32_BITS for prefix in (48, 56, 64)]
    return [number, *(form for form in forms if form >> 24)]
