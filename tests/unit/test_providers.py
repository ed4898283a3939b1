"""The settings express every surveyed scheme: what the provider signs is verified, and `Signer` signs as it does."""

import time

import pytest

from app.config.sources import load_settings
from app.delivery.signature import Lookup, Signer, Verifier
from app.errors import BadSignature, SignatureFault
from tests.support.providers import PATH, PROVIDERS, RAW_BASE64, RAW_HEX, RAW_HEX_WITH_PREFIX, Provider

BODY = b'{"id":"evt_1","type":"invoice.paid","data":{"id":"inv_4001"}}'
SURVEYED = 39

every_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)


def verifier(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Verifier:
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    return Verifier(settings.signing_keys, settings.signature_scheme)


def lookup(headers: dict[str, str]) -> Lookup:
    values = {name.lower().encode(): [value.encode()] for name, value in headers.items()}
    return lambda name: values.get(name, [])


def fault(verifier: Verifier, headers: dict[str, str], body: bytes = BODY, method: str = "POST") -> SignatureFault:
    with pytest.raises(BadSignature) as raised:
        verifier.verify(lookup(headers), body, method, PATH.encode())
    return raised.value.fault


def test_the_survey_is_covered() -> None:
    """JOBSITEON.md: 24 of 39 sign the raw body alone, 11 in hex, 5 in hex with a prefix, 8 in base64."""
    assert (len(RAW_HEX), len(RAW_HEX_WITH_PREFIX), len(RAW_BASE64)) == (11, 5, 8)
    assert len({provider.name for provider in PROVIDERS}) == len(PROVIDERS) >= SURVEYED


@every_provider
def test_what_it_signs_is_verified(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = verifier(provider, monkeypatch).verify
    assert verify(lookup(provider.send(BODY, time.time())), BODY, "POST", PATH.encode()) == 0


@every_provider
def test_what_it_did_not_sign_is_refused(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: an altered body, a forged signature, every header left out, and one that comes late."""
    verify = verifier(provider, monkeypatch)
    sent = provider.send(BODY, time.time())
    assert fault(verify, sent, BODY + b" ") == "no key fits"
    assert (
        fault(verify, Provider("forger", provider.headers, {}, key=b"another key").send(BODY, time.time()))
        == "no key fits"
    )
    signed = {setting for setting in provider.settings if setting.endswith("HEADER")}
    for setting in signed:
        without = {name: value for name, value in sent.items() if name != provider.settings[setting]}
        assert fault(verify, without) in {"no header", "no timestamp", "no id"}
    if provider.signs_time:
        for late in (-301, 301):
            assert fault(verify, provider.send(BODY, time.time() + late)) == "timestamp out of tolerance"


@every_provider
def test_the_signer_signs_as_it_is_verified(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = verifier(provider, monkeypatch)
    settings = load_settings()
    signed = Signer(settings.signing_keys[0], settings.signature_scheme).headers(BODY, "POST", PATH.encode())
    assert signed.keys() <= provider.send(BODY, 0).keys()
    assert verify.verify(lookup(signed), BODY, "POST", PATH.encode()) == 0
    assert fault(verify, signed, b"{}") == "no key fits"
