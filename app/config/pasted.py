"""What goes wrong with values on their way from a web page into a setting. No message quotes a value (P7).

JobsiteOn does not document what its keys look like. So a key is refused for what no key can have, such as
quotes around it, and never for a character that one might have.
"""

import re
import unicodedata
from urllib.parse import unquote

MIN_KEY_LENGTH = 16
"""Characters. Shorter keys can be guessed; JobsiteOn's are longer."""

_PLACEHOLDER = re.compile(
    r"(?i)change[-_ ]?me|your[-_ ]|placeholder|replace[-_ ]|example|redacted|^(?:todo|fixme|dummy|paste|insert)\b"
    r"|secret[-_ ]?key$|^<.*>$|^(.)\1*$|^\$\w+$|^\$\{[^}]*\}$|^\{\{.*\}\}$|^%\w+%$|^\$\(.*\)$"
)
_QUOTES = "\"'`“”„‟‘’‚‛«»‹›"
_PLAIN = rf"[\w.~+/=:-]{{{MIN_KEY_LENGTH},}}"
"""A key of the characters that most keys are made of. One of others too may have a comma or a quote of its own."""
_NAMES_OF_KEYS = (
    r"x-signature|(?:x-)?(?:jobsiteon-)?(?:api|access|secret|webhook|signing)?[-_ ]?(?:key|token|secret)"
    r"|authorization|bearer"
)
_ANOTHER_SETTING = re.compile(r"(?i)(?:^|\s)(?:JOBHOOK_\w+|JOBSITEON_\w+|REDIS_URL)\s*=")
_ENCODED_BY_A_URL = re.compile(r"(?:[\w.~-]|%[0-9A-Fa-f]{2})+", re.ASCII)

_WRONG_KEYS = {
    # A pattern that is looked for in a key, and what is wrong with a key that has it. The first found is told.
    r"^[\[{]\s*[\"'][\w.~+/=: -]+[\"']": "is written as JSON: write the key alone, and separate several by commas",
    r"(?i)^(?:export\s+)?(?:JOBHOOK|JOBSITEON)_\w+\s*[=:]": "begins with a setting's name: write the key alone",
    r"(?i)^(?:bearer|basic|token)(?:\s|:|%20)": "begins with a word of the Authorization header: write the key alone",
    rf"(?i)^(?:{_NAMES_OF_KEYS})\s*:": "begins with a name and a colon: write the key alone",
    rf"(?i)^(?:export\s+)?(?:[A-Z0-9]+_)*(?:{_NAMES_OF_KEYS})\s*=": "begins with a name and a =: write the key alone",
    r"(?i)^(?:hmac-)?sha(?:1|256|384|512)=": "is a signature, not a key",
    r"(?i)^[a-z][a-z0-9+.-]+://": "is a URL: put the API key there",
    r"(?i)^(?:/(?:run|var|etc|home|opt|srv|tmp|mnt|usr|secrets)/|\.{1,2}/|~/|@/|[a-z]:\\)[\w./\\ -]+$": (
        "is the name of a file: put the key itself there, or name a folder of secret files in JOBHOOK_SECRETS_DIR"
    ),
    r"\*{3}|[•●∙·]{3}|[xX]{8}|^.{0,12}\.{3}|\.{3}$|…": (
        "is masked or cut short: copy the whole key; JobsiteOn shows it only once"
    ),
    rf"^{_PLAIN}(?:\\[nrt]?)+$": "ends with a backslash: is it the escape of a newline?",
    r"&(?:amp|quot|apos|lt|gt|nbsp|#\w+);": "has a character in the form of HTML: copy the key as it is shown",
    rf"^[,;]{_PLAIN}$|^{_PLAIN}[,;]$": "begins or ends with a comma or semicolon",
    rf"^[\"'`]{_PLAIN}$|^{_PLAIN}[\"'`];?$|^([\"'`]).*\1$": "has quotes around it: write it without",
    rf"^(?:<{_PLAIN}>|\[{_PLAIN}\]|\({_PLAIN}\)|\{{+{_PLAIN}\}}+)$": "has brackets around it: write it without",
    rf"^{_PLAIN}[,;|]{_PLAIN}": (
        "is several keys: write the current one, and the others into JOBSITEON_PREVIOUS_API_KEYS, with commas"
    ),
}


def unusable_text(text: str) -> str | None:
    """Why no setting can be meant as it stands there; None if it can."""
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] in _QUOTES and stripped[-1] in _QUOTES:
        return "has quotes around it: write it without"
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cf"} and character not in "\t\r\n":
            return _invisible(character)
    if _ANOTHER_SETTING.search(text):
        return "has another setting in it: write one a line"
    if "${" in text:
        return "has a ${…} in it that nothing has replaced by a value"
    return None


def unusable_key(key: str) -> str | None:
    """Why JobsiteOn can never have signed with this; None if it may have."""
    if not key.strip():
        return "is empty"
    if is_placeholder(key):
        return "is a placeholder: put a real API key there"
    if key != key.strip():
        return "begins or ends with white space"
    if how := wrongly_pasted(key):
        return how
    if len(key) < MIN_KEY_LENGTH:
        return f"is too short: a key has at least {MIN_KEY_LENGTH} characters"
    return None


def is_placeholder(key: str) -> bool:
    """Whether it stands where a key is to be put, as examples and templates have it."""
    return bool(_PLACEHOLDER.search(key))


def wrongly_pasted(key: str) -> str | None:
    """Why a key or secret has not been pasted as it is; None if it may have been."""
    for pattern, problem in _WRONG_KEYS.items():
        if re.search(pattern, key):
            return problem
    if unfit := _unfit_character(key):
        return unfit
    if len(key) >= 2 * MIN_KEY_LENGTH and key[: len(key) // 2] * 2 == key:
        return "is the same text twice: pasted twice?"
    if _ENCODED_BY_A_URL.fullmatch(key) and unquote(key) != key:
        return "is percent-encoded, as in a URL: write the key as it is shown"
    return None


def _unfit_character(key: str) -> str | None:
    """Letters and digits of any alphabet may be right, and bytes that are not text; they arrive as surrogates."""
    for character in key:
        category = unicodedata.category(character)
        if category in {"Zs", "Zl", "Zp"} or character in "\t\r\n\v\f":
            return "has white space in it: is it several keys, or is a line pasted along?"
        if category in {"Cc", "Cf", "Co", "Cn"}:
            return _invisible(character)
        if not character.isascii() and category[0] in "PS":
            return (
                f"has a typographic character (U+{ord(character):04X}) in it: copy it from JobsiteOn, not from a text"
            )
    return None


def _invisible(character: str) -> str:
    return f"has an invisible character (U+{ord(character):04X}) in it: type it anew, or copy it without"
