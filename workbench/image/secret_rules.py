"""What a secret looks like: by its form where it has one of its own, else by the file it lies in and what stands there.

Every form begins with a letter that does not vary, so a search for those of one letter runs at 3 GB/s (measured; one
alternative of all forms runs at 0.13), and weights are searched like anything else. What it finds is then judged by
content: a key has to hold a key, a token's letters have to be mixed, words that stand for a password are none. So
documentation passes without any path being left out.

The forms are those their makers publish, and that gitleaks, trufflehog and detect-secrets look for as well.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LONGEST = 1 << 14
"""No form is longer: an RSA key of 8192 bits is 6.4 kB of text."""

_Judge = Callable[[re.Match[bytes]], bool]

_STANDS_FOR = frozenset(
    b"user username name login pass password passwd passphrase pwd pw secret token key apikey credential credentials "
    b"value string changeme foo bar baz joe none null true false todo redacted removed hidden placeholder dummy "
    b"fake test sample demo secretkey accesskey authtoken accesstoken hunter admin guest anonymous proxy host".split()
)


def is_placeholder(value: bytes) -> bool:
    """Whether a value only stands for a secret: ``<token>``, ``${TOKEN}``, ``your-password1``, ``xxxx``, nothing."""
    value = value.strip(b"\"' \t")
    word = re.sub(rb"^(my|your|the|some|new|old)", b"", re.sub(rb"[^a-z]", b"", value.lower()))
    shown = value[:1] in b"<${%*[(" or value[:3] == b"..." or b"example" in value.lower()
    return len(set(value)) < 4 or shown or word in _STANDS_FOR


def _is_mixed(found: re.Match[bytes]) -> bool:
    """Whether the letters are as mixed as drawn ones are: ``xxxx``, ``abcd``, ``your-token`` stand in documents."""
    value = found[1]
    steps = sum(after - before == 1 for before, after in itertools.pairwise(value))
    mixed = len(set(value)) >= min(10, len(value) // 2) and re.search(rb"[0-9A-Z]", value) is not None
    return mixed and steps < len(value) // 4 and b"EXAMPLE" not in value


def _holds_a_key(found: re.Match[bytes]) -> bool:
    """Whether PEM armour holds a key: whole DER, OpenSSH's mark, an OpenPGP packet, or what a header calls encrypted.

    A library names the armour, documents show it with dots in it, and both are no secret.
    """
    lines = found["body"].replace(rb"\r", b"").replace(rb"\n", b"\n").split(b"-----")[0].split(b"\n")
    headers = [line for line in lines if b":" in line]
    try:
        text = b"".join(line.strip() for line in lines if b":" not in line and line[:1] != b"=")
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    encrypted = len(data) >= 64 and any(b"ENCRYPTED" in line for line in headers)
    packet = b"PGP" in found[0][:40] and data[:1] in (b"\x94", b"\x95", b"\x97", b"\xc5")
    return encrypted or packet or _is_whole_der(data) or data.startswith(b"openssh-key-v1\0")


def _is_whole_der(data: bytes) -> bool:
    """Whether ``data`` is one sequence of the length that it says."""
    if len(data) < 40 or data[0] != 0x30:
        return False
    extra = data[1] & 0x7F if data[1] & 0x80 else 0
    length = int.from_bytes(data[2 : 2 + extra], "big") if extra else data[1]
    return len(data) == 2 + extra + length


def _is_signed_token(found: re.Match[bytes]) -> bool:
    """Whether the first part is a JOSE header of a signed token. The one that jwt.io shows to everybody is none."""
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(found[part] + b"==")) for part in (1, 2))
    except ValueError:
        return False
    return isinstance(header, dict) and header.get("alg", "none") != "none" and _subject(claims) != "1234567890"


def _subject(claims: object) -> object:
    return claims.get("sub") if isinstance(claims, dict) else None


def _is_login(found: re.Match[bytes]) -> bool:
    user, password, host = found[1], found[2], found[3].lower()
    shown = re.search(rb"(^|\.)(example(\.\w+)?|test|invalid|host|hostname|domain|server|proxy)$", host)
    return not (is_placeholder(password) or user == password or user[:1] in b"<${%" and user or shown)


def _is_value(found: re.Match[bytes]) -> bool:
    return not is_placeholder(found[1])


@dataclass(frozen=True)
class Form:
    """A form: what it is called, how it looks, whether a find is one, and whether it begins a word."""

    kind: str
    pattern: re.Pattern[bytes]
    judge: _Judge
    word: bool


def _form(kind: str, pattern: bytes, judge: _Judge = _is_mixed, *, word: bool = True) -> Form:
    return Form(kind, re.compile(pattern), judge, word)


_PEM = rb"-----(?:\\[rn]|\s)(?P<body>(?:[A-Za-z0-9+/=:,.\- \t]|\\[rn]|\s){60,12000})"

_AWS = rb"[\"' ]{0,3}[=:][\"' ]{0,3}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"

FORMS = (
    _form("private key", rb"-----BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?" + _PEM, _holds_a_key, word=False),
    _form("AWS access key", rb"AKIA([A-Z2-7]{16})(?![A-Za-z0-9+/=])"),
    _form("AWS access key", rb"ASIA([A-Z2-7]{16})(?![A-Za-z0-9+/=])"),
    _form("AWS secret key", rb"secret_access_key" + _AWS, word=False),
    _form("AWS secret key", rb"SECRET_ACCESS_KEY" + _AWS, word=False),
    _form("AWS secret key", rb"SecretAccessKey" + _AWS, word=False),
    _form("Google API key", rb"AIza([\w-]{35})(?![\w-])"),
    _form("Google OAuth client secret", rb"GOCSPX-([\w-]{28})"),
    # The one left out is what every copy of the storage emulator has.
    _form("Azure storage key", rb"AccountKey=(?!Eby8vdM02xNO)([A-Za-z0-9+/]{86})==", word=False),
    _form("Azure access key", rb"SharedAccessKey=([A-Za-z0-9+/]{43})="),
    _form("GitHub token", rb"gh[pousr]_([A-Za-z0-9]{36,255})"),
    _form("GitHub token", rb"github_pat_([A-Za-z0-9]{22}_[A-Za-z0-9]{59})"),
    _form("GitLab token", rb"gl(?:pat|dt|rt|ptt|ft|soat|imt|agent|cbt|oas)-([\w-]{20,255})"),
    _form("Slack token", rb"xox[abeprs]-([\w-]{20,250})"),
    _form("Slack token", rb"xapp-(\d-[A-Z0-9]+-\d+-[a-f0-9]{20,80})"),
    _form("Slack webhook", rb"hooks\.slack\.com/services/(T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/\w{20,30})", word=False),
    _form("Hugging Face token", rb"hf_([A-Za-z0-9]{34})(?!\w)"),
    _form("PyPI token", rb"pypi-(AgE[\w-]{60,1000})"),
    _form("npm token", rb"npm_([A-Za-z0-9]{36})(?!\w)"),
    _form("npm login", rb":_(?:authToken|auth|password) ?= ?\"?([^\s\"]{8,2000})", _is_value, word=False),
    _form("Docker Hub token", rb"dckr_[op]at_([\w-]{27,250})"),
    _form("OpenAI key", rb"sk-(?:proj|svcacct|admin|None)-([\w-]{40,250})"),
    _form("Anthropic key", rb"sk-ant-(?:api|admin)\d\d-([\w-]{80,120})"),
    _form("Stripe key", rb"sk_live_([A-Za-z0-9]{20,255})"),
    _form("age key", rb"AGE-SECRET-KEY-1([0-9A-Z]{58})"),
    _form("JSON web token", rb"(eyJ[\w-]{10,300})\.(eyJ[\w-]{10,4000})\.[\w-]{20,1000}", _is_signed_token),
    _form(
        "login in an address",
        rb"://([^\s/@:\"'<>\\\x00-\x1f]{0,80}):([^\s/@:,\"'<>\\\x00-\x1f]{3,250})@([\w.-]{1,255})",
        _is_login,
        word=False,
    ),
)


def _sieves() -> tuple[tuple[re.Pattern[bytes], tuple[Form, ...]], ...]:
    """The forms that begin with the same letter, and one pattern for all of them: one search each."""
    by_letter: dict[bytes, list[Form]] = {}
    for form in FORMS:
        by_letter.setdefault(form.pattern.pattern.lstrip(b"(")[:1], []).append(form)
    return tuple(
        (re.compile(b"|".join(form.pattern.pattern for form in forms)), tuple(forms)) for forms in by_letter.values()
    )


_SIEVES = _sieves()


def in_bytes(data: bytes) -> list[str]:
    """The kinds of secrets that a piece of a file has the form of, each once."""
    caught = (form for sieve, forms in _SIEVES if sieve.search(data) for form in forms)
    return list(dict.fromkeys(form.kind for form in caught if any(True for _ in _finds(form, data))))


def spans(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Where in a text secrets lie, ``(begin, end, kind)``: those with a form, and the values that settings give."""
    for sieve, forms in _SIEVES:
        if sieve.search(data):
            yield from ((*found.span(), form.kind) for form in forms for found in _finds(form, data))
    yield from ((*found.span("value"), _value_of(found)) for found in _set(data))


def _finds(form: Form, data: bytes) -> Iterator[re.Match[bytes]]:
    return (
        found for found in form.pattern.finditer(data) if (not form.word or _begins(data, found)) and form.judge(found)
    )


def _begins(data: bytes, found: re.Match[bytes]) -> bool:
    """Whether a find is no part of a longer word. Said here, not in the pattern: that must begin with plain letters."""
    before = data[found.start() - 1 : found.start()] if found.start() else b""
    return not (before.isalnum() or before in (b"_", b"+", b"="))


_SECRET_NAME = rb"(?:\w*_)?(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|SECRET_KEY|TOKEN|API_?KEY|ACCESS_KEY|PRIVATE_KEY)"
_SETTING = re.compile(
    rb"(?:^|[\s|\"])(?:export )?(?P<name>" + _SECRET_NAME + rb") ?= ?(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"']*)",
    re.MULTILINE | re.IGNORECASE,
)
_ADDRESS = re.compile(rb"\w+://|file:")
# A path below a folder that systems have may hold anything; elsewhere its parts have to be words, with a number at
# most: passwords that were drawn begin with a slash, too.
_KNOWN_PATH = re.compile(
    rb"/(?:app|bin|certs?|config|data|dev|etc|home|lib|mnt|models|nix|opt|proc|root|run|secrets|srv|sys|tmp|usr|var"
    rb"|vault|work|workspace)/[\w./@%~${}*+-]+"
)
_BEGINNING = re.compile(rb"(?:~[a-z]*|\.{1,2})?/")
_WORD = re.compile(rb"(?:[A-Z]+|[A-Z]?[a-z]+(?:[A-Z][a-z]{2,})*)(?:\d{1,4}(?:[a-z]{3,})?)?|\w{1,4}|\d+")
_LONGEST_PATH = 512


def in_settings(data: bytes) -> list[str]:
    """``NAME=value`` where the name says that the value is a secret: ``.env`` files, an image's variables, ``ARG``."""
    return [_value_of(found) for found in itertools.islice(_set(data), 1)]


def _set(data: bytes) -> Iterator[re.Match[bytes]]:
    for found in _SETTING.finditer(data):
        value = found["value"].strip(b"\"'")
        is_setting = re.fullmatch(rb"yes|no|on|off|auto|default|\d{1,4}", value) is not None
        if not (is_setting or is_placeholder(value) or _ADDRESS.match(value) or _is_path(value)):
            yield found


def _value_of(found: re.Match[bytes]) -> str:
    return f"value of {found['name'].decode()}"


def _is_path(value: bytes) -> bool:
    """Whether a value begins with a path; what follows a sign of the shell's is no part of it."""
    path = re.split(rb"[;&|)<>,:]", value[:_LONGEST_PATH], maxsplit=1)[0]
    if _KNOWN_PATH.fullmatch(path) or re.fullmatch(rb"(?:\.[a-z]+)+", path):
        return True
    beginning = _BEGINNING.match(path)
    words = [word for word in re.split(rb"[/._@-]+", path[beginning.end() :]) if word] if beginning else []
    several = not path.startswith(b"/") or path.rstrip(b"/").count(b"/") > 1
    return several and bool(words) and all(_WORD.fullmatch(word) for word in words)


def _netrc(data: bytes) -> list[str]:
    found = re.search(rb"\b(?:machine|default)\b[^#]{0,400}?\bpassword\s+(\S+)", data)
    return ["login of a netrc file"] if found and _is_value(found) else []


def _pgpass(data: bytes) -> list[str]:
    found = re.search(rb"(?m)^[^#:\n]+:[^:\n]+:[^:\n]+:[^:\n]+:([^:\n]+)$", data)
    return ["PostgreSQL password"] if found and _is_value(found) else []


def _docker(data: bytes) -> list[str]:
    found = re.search(rb"\"(?:auth|identitytoken|registrytoken|password)\"\s*:\s*\"([^\"]{4,})\"", data)
    return ["registry login"] if found and _is_value(found) else []


def _kube(data: bytes) -> list[str]:
    found = re.search(rb"(?:client-key-data|token|password)\"?:\s*\"?([^\s\"]{8,})", data)
    return ["Kubernetes login"] if found and _is_value(found) else []


def _kaggle(data: bytes) -> list[str]:
    return ["Kaggle key"] if re.search(rb"\"key\"\s*:\s*\"[0-9a-f]{32}\"", data) else []


def _passwords(data: bytes) -> list[str]:
    return ["password hash"] if re.search(rb"(?m)^[\w.-]+:(?:\$\w+\$|\{SHA\}|[./\w]{13}:\d)", data) else []


def _npmrc(data: bytes) -> list[str]:
    found = re.search(rb"(?m)^\s*_(?:auth|authToken|password)\s*=\s*\"?([^\s\"]{8,})", data)
    return ["npm login"] if found and _is_value(found) else []


def _ini(data: bytes) -> list[str]:
    found = re.search(rb"(?mi)^\s*(?:password|token|secret)\s*[=:]\s*(\S{4,})", data)
    return ["password in a configuration file"] if found and _is_value(found) else []


def _anything(data: bytes) -> list[str]:
    return ["secret handed to a container"] if data.strip() else []


def _key_store(data: bytes) -> list[str]:
    marks = (b"\x30\x82", b"\x30\x80", b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")
    return ["key store"] if data.startswith(marks) else []


_BY_NAME: tuple[tuple[re.Pattern[str], Callable[[bytes], list[str]]], ...] = tuple(
    (re.compile(pattern), look)
    for pattern, look in (
        (r"/[._]netrc$", _netrc),
        (r"/\.pgpass$", _pgpass),
        (r"/(\.docker|containers)/(config|auth)\.json$|/\.dockercfg$", _docker),
        (r"/\.kube/config$|/kubeconfig$|/(kubelet|admin)\.conf$", _kube),
        (r"/kaggle\.json$", _kaggle),
        (r"/etc/g?shadow-?$|/\.htpasswd$", _passwords),
        (r"/\.npmrc$", _npmrc),
        (r"/(pip\.conf|\.pypirc|\.my\.cnf|\.boto|\.s3cfg)$", _ini),
        (r"/\.env(\.[\w-]+)?$|/[\w-]+\.env$", in_settings),
        (r"/run/secrets/[^/]+(/[^/]+)?$|/\.vault-token$", _anything),
        (r"\.(p12|pfx|jks|keystore)$", _key_store),
    )
)
LARGEST_NAMED = 1 << 20
"""Files that are secrets by their name are small."""


def for_name(path: str) -> Callable[[bytes], list[str]] | None:
    """What to look for besides in a file called ``path``, in its whole content."""
    return next((look for pattern, look in _BY_NAME if pattern.search(path)), None)
