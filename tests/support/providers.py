"""How real providers sign their webhooks, from their public documentation, and the settings that express each.

The senders here are written after what the providers say, by hand and without `app.delivery`: so a test that they are
verified shows that the settings mean what the provider means. Where a provider keeps a signature elsewhere than in a
header, or signs fields of the payload and not the payload, it is not here.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

TEXT_KEY = "jso_demo_5f1c7a90b2d84e6f"
BASE64_KEY = base64.b64encode(b"a-demo-key-of-thirty-two-bytes!!").decode()
HEX_KEY = "4b1c8f0e2d7a6953c0ffee11d00dfeed9e3f5a7b1c2d4e6f8091a2b3c4d5e6f7"
PATH = "/webhooks/jobsiteon"
URL = "https://hooks.example.com" + PATH


@dataclass(frozen=True)
class Sent:
    """A delivery that is to be signed."""

    body: bytes
    now: float
    key: bytes
    """As the provider uses it: decoded."""
    id: str = "7f0d3c1e-5a4b-4f6e-9c7d-2b1a0e9f8d7c"

    @property
    def seconds(self) -> str:
        return str(int(self.now))

    @property
    def milliseconds(self) -> str:
        return str(int(self.now * 1000))

    @property
    def iso(self) -> str:
        return datetime.fromtimestamp(int(self.now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def mac(self, before: str = "", after: str = "", hash: str = "sha256") -> bytes:
        return hmac.new(self.key, before.encode() + self.body + after.encode(), getattr(hashlib, hash)).digest()

    def hex(self, before: str = "", after: str = "", hash: str = "sha256") -> str:
        return self.mac(before, after, hash).hex()

    def base64(self, before: str = "", after: str = "", hash: str = "sha256") -> str:
        return base64.b64encode(self.mac(before, after, hash)).decode()


Settings = dict[str, str]
_ANOTHERS = base64.b64encode(bytes(32)).decode()
"""A signature by another of the sender's keys, while it rotates them."""


@dataclass(frozen=True)
class Provider:
    """How one provider signs."""

    name: str
    headers: Callable[[Sent], dict[str, str]]
    settings: Settings
    """Without `JOBHOOK_`."""
    configured_key: str = TEXT_KEY
    key: bytes = field(default=TEXT_KEY.encode())

    @property
    def environment(self) -> dict[str, str]:
        """What expresses this scheme."""
        return {"JOBSITEON_API_KEY": self.configured_key} | {f"JOBHOOK_{k}": v for k, v in self.settings.items()}

    @property
    def signs_time(self) -> bool:
        return "{timestamp}" in self.settings.get("SIGNATURE_CONTENT", "")

    def send(self, body: bytes, now: float) -> dict[str, str]:
        """The headers of a delivery."""
        return self.headers(Sent(body, now, self.key))


def _header(name: str, **others: str) -> Settings:
    return {"SIGNATURE_HEADER": name} | {f"SIGNATURE_{key.upper()}": value for key, value in others.items()}


def _raw(provider: str, header: str, prefix: str = "", hash: str = "sha256", encoding: str = "hex") -> Provider:
    """The MAC of the raw body in a header: one that `auto` reads, of whatever encoding, with or without a prefix."""
    return Provider(
        provider,
        lambda s: {header: prefix + (s.hex(hash=hash) if encoding == "hex" else s.base64(hash=hash))},
        _header(header, **({} if hash == "sha256" else {"algorithm": hash})),
    )


def _stripe_like(provider: str, header: str, time: str, mac: str, join: str = ",", between: str = ".") -> Provider:
    """`t=…,v1=…` in one header, over the timestamp and the body."""
    return Provider(
        provider,
        lambda s: {header: f"{time}={s.seconds}{join}{mac}={s.hex(s.seconds + between)}"},
        _header(
            header,
            form=f"{time}={{timestamp}}{join}{mac}={{signature}}",
            content=f"{{timestamp}}{between}{{body}}",
        ),
    )


def _standard_webhooks(provider: str, prefix: str) -> Provider:
    return Provider(
        provider,
        lambda s: {
            f"{prefix}-id": "msg_" + s.id,
            f"{prefix}-timestamp": s.seconds,
            f"{prefix}-signature": f"v1,{_ANOTHERS} v1,{s.base64(f'msg_{s.id}.{s.seconds}.')}",
        },
        _header(
            f"{prefix}-signature",
            form="v1,{signature} v1,{signature}",
            content="{id}.{timestamp}.{body}",
            timestamp_header=f"{prefix}-timestamp",
            id_header=f"{prefix}-id",
            key_form="base64",
        ),
        "whsec_" + BASE64_KEY,
        base64.b64decode(BASE64_KEY),
    )


RAW_HEX = [
    _raw("Dropbox", "X-Dropbox-Signature"),
    _raw("Asana", "X-Hook-Signature"),
    _raw("Linear", "Linear-Signature"),
    _raw("Sentry", "Sentry-Hook-Signature"),
    _raw("LaunchDarkly", "X-LD-Signature"),
    _raw("Razorpay", "X-Razorpay-Signature"),
    _raw("Paystack", "X-Paystack-Signature", hash="sha512"),
    _raw("Coinbase Commerce", "X-CC-Webhook-Signature"),
    _raw("Lemon Squeezy", "X-Signature"),
    _raw("Vercel", "X-Vercel-Signature", hash="sha1"),
    _raw("GoCardless", "Webhook-Signature"),
]
RAW_HEX_WITH_PREFIX = [
    _raw("GitHub", "X-Hub-Signature-256", "sha256="),
    _raw("Bitbucket", "X-Hub-Signature", "sha256="),
    _raw("Intercom", "X-Hub-Signature", "sha1=", "sha1"),
    _raw("Notion", "X-Notion-Signature", "sha256="),
    _raw("CircleCI", "circleci-signature", "v1="),
]
RAW_BASE64 = [
    _raw("Acuity", "X-Acuity-Signature", encoding="base64"),
    _raw("Shopify", "X-Shopify-Hmac-Sha256", encoding="base64"),
    _raw("Xero", "X-Xero-Signature", encoding="base64"),
    _raw("QuickBooks", "intuit-signature", encoding="base64"),
    _raw("DocuSign", "X-DocuSign-Signature-1", encoding="base64"),
    _raw("WooCommerce", "X-WC-Webhook-Signature", encoding="base64"),
    _raw("Help Scout", "X-HelpScout-Signature", hash="sha1", encoding="base64"),
    _raw("Typeform", "Typeform-Signature", "sha256=", encoding="base64"),
]
OTHERS = [
    _stripe_like("Stripe", "Stripe-Signature", "t", "v1"),
    _stripe_like("Calendly", "Calendly-Webhook-Signature", "t", "v1"),
    _stripe_like("Mux", "Mux-Signature", "t", "v1"),
    _stripe_like("TikTok", "TikTok-Signature", "t", "s"),
    _stripe_like("Buildkite", "X-Buildkite-Signature", "timestamp", "signature"),
    _stripe_like("Paddle", "Paddle-Signature", "ts", "h1", ";", ":"),
    Provider(
        "WorkOS",
        lambda s: {"WorkOS-Signature": f"t={s.milliseconds}, v1={s.hex(s.milliseconds + '.')}"},
        _header("WorkOS-Signature", form="t={timestamp},v1={signature}", content="{timestamp}.{body}"),
    ),
    Provider(
        "Recurly",
        lambda s: {"recurly-signature": f"{s.milliseconds},{'0' * 64},{s.hex(s.milliseconds + '.')}"},
        _header("recurly-signature", form="{timestamp},{signature}", content="{timestamp}.{body}"),
    ),
    Provider(
        "PagerDuty",
        lambda s: {"X-PagerDuty-Signature": f"v1={'0' * 64},v1={s.hex()}"},
        _header("X-PagerDuty-Signature", form="v1={signature},v1={signature}"),
    ),
    _standard_webhooks("Svix", "svix"),
    _standard_webhooks("Standard Webhooks", "webhook"),
    Provider(
        "Slack",
        lambda s: {
            "X-Slack-Request-Timestamp": s.seconds,
            "X-Slack-Signature": "v0=" + s.hex(f"v0:{s.seconds}:"),
        },
        _header(
            "X-Slack-Signature",
            form="v0={signature}",
            content="v0:{timestamp}:{body}",
            timestamp_header="X-Slack-Request-Timestamp",
        ),
    ),
    Provider(
        "Zoom",
        lambda s: {"x-zm-request-timestamp": s.seconds, "x-zm-signature": "v0=" + s.hex(f"v0:{s.seconds}:")},
        _header(
            "x-zm-signature",
            form="v0={signature}",
            content="v0:{timestamp}:{body}",
            timestamp_header="x-zm-request-timestamp",
        ),
    ),
    Provider(
        "Twitch",
        lambda s: {
            "Twitch-Eventsub-Message-Id": s.id,
            "Twitch-Eventsub-Message-Timestamp": s.iso[:-1] + ".616329898Z",
            "Twitch-Eventsub-Message-Signature": "sha256=" + s.hex(s.id + s.iso[:-1] + ".616329898Z"),
        },
        _header(
            "Twitch-Eventsub-Message-Signature",
            content="{id}{timestamp}{body}",
            timestamp_header="Twitch-Eventsub-Message-Timestamp",
            id_header="Twitch-Eventsub-Message-Id",
        ),
    ),
    Provider(
        "Zendesk",
        lambda s: {
            "X-Zendesk-Webhook-Signature-Timestamp": s.iso,
            "X-Zendesk-Webhook-Signature": s.base64(s.iso),
        },
        _header(
            "X-Zendesk-Webhook-Signature",
            content="{timestamp}{body}",
            timestamp_header="X-Zendesk-Webhook-Signature-Timestamp",
        ),
    ),
    Provider(
        "Box",
        lambda s: {
            "BOX-DELIVERY-TIMESTAMP": s.iso[:-1] + "+00:00",
            "BOX-SIGNATURE-PRIMARY": s.base64(after=s.iso[:-1] + "+00:00"),
        },
        _header("BOX-SIGNATURE-PRIMARY", content="{body}{timestamp}", timestamp_header="BOX-DELIVERY-TIMESTAMP"),
    ),
    Provider(
        "Webflow",
        lambda s: {"X-Webflow-Timestamp": s.milliseconds, "X-Webflow-Signature": s.hex(s.milliseconds + ":")},
        _header("X-Webflow-Signature", content="{timestamp}:{body}", timestamp_header="X-Webflow-Timestamp"),
    ),
    Provider(
        "Front",
        lambda s: {"X-Front-Request-Timestamp": s.milliseconds, "X-Front-Signature": s.base64(s.milliseconds + ":")},
        _header("X-Front-Signature", content="{timestamp}:{body}", timestamp_header="X-Front-Request-Timestamp"),
    ),
    Provider(
        "Housecall Pro",
        lambda s: {"Api-Timestamp": s.seconds, "Api-Signature": s.hex(s.seconds + ".")},
        _header("Api-Signature", content="{timestamp}.{body}", timestamp_header="Api-Timestamp"),
    ),
    Provider(
        "Square",
        lambda s: {"X-Square-HmacSha256-Signature": s.base64(URL)},
        _header("X-Square-HmacSha256-Signature", content="{url}{body}") | {"PUBLIC_URL": URL},
    ),
    Provider(
        "Trello",
        lambda s: {"X-Trello-Webhook": s.base64(after=URL, hash="sha1")},
        _header("X-Trello-Webhook", algorithm="sha1", content="{body}{url}") | {"PUBLIC_URL": URL},
    ),
    Provider(
        "HubSpot, version 3",
        lambda s: {
            "X-HubSpot-Request-Timestamp": s.milliseconds,
            "X-HubSpot-Signature-v3": s.base64("POST" + URL, s.milliseconds),
        },
        _header(
            "X-HubSpot-Signature-v3",
            content="{method}{url}{body}{timestamp}",
            timestamp_header="X-HubSpot-Request-Timestamp",
        )
        | {"PUBLIC_URL": URL},
    ),
    Provider(
        "Contentful",
        lambda s: {
            "x-contentful-signed-headers": "x-contentful-signed-headers,x-contentful-timestamp",
            "x-contentful-timestamp": s.milliseconds,
            "x-contentful-signature": s.hex(
                f"POST\n{PATH}\nx-contentful-signed-headers:x-contentful-signed-headers,x-contentful-timestamp;"
                f"x-contentful-timestamp:{s.milliseconds}\n"
            ),
        },
        _header(
            "x-contentful-signature",
            content=r"{method}\n{path}\nx-contentful-signed-headers:x-contentful-signed-headers,x-contentful-timestamp;"
            r"x-contentful-timestamp:{timestamp}\n{body}",
            timestamp_header="x-contentful-timestamp",
        ),
    ),
    Provider(
        "Airtable",
        lambda s: {"X-Airtable-Content-MAC": "hmac-sha256=" + s.hex()},
        _header("X-Airtable-Content-MAC", key_form="base64"),
        BASE64_KEY,
        base64.b64decode(BASE64_KEY),
    ),
    Provider(
        "Microsoft Teams",
        lambda s: {"Authorization": "HMAC " + s.base64()},
        _header("Authorization", form="HMAC {signature}", key_form="base64"),
        BASE64_KEY,
        base64.b64decode(BASE64_KEY),
    ),
    Provider(
        "Adyen",
        lambda s: {"HmacSignature": s.base64()},
        _header("HmacSignature", key_form="hex"),
        HEX_KEY,
        bytes.fromhex(HEX_KEY),
    ),
    Provider(
        "Customer.io",
        lambda s: {"X-CIO-Timestamp": s.seconds, "X-CIO-Signature": s.hex(f"v0:{s.seconds}:")},
        _header("X-CIO-Signature", content="v0:{timestamp}:{body}", timestamp_header="X-CIO-Timestamp"),
    ),
]
PROVIDERS = [*RAW_HEX, *RAW_HEX_WITH_PREFIX, *RAW_BASE64, *OTHERS]
TOO_LONG_TO_GUESS = {"Contentful"}
"""What these sign has text in it that only their documentation tells: settings express it, nobody can guess it."""
