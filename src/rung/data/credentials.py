"""Keys and passwords in a text: the forms that providers give to keys (detect-secrets), and what a word announces.

Knows texts; nothing here prints or keeps what it finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

_PLUGINS = (
    "private_key:PrivateKeyDetector",
    "aws:AWSKeyDetector",
    "azure_storage_key:AzureStorageKeyDetector",
    "discord:DiscordBotTokenDetector",
    "github_token:GitHubTokenDetector",
    "gitlab_token:GitLabTokenDetector",
    "jwt:JwtTokenDetector",
    "mailchimp:MailchimpDetector",
    "npm:NpmDetector",
    "openai:OpenAIDetector",
    "pypi_token:PypiTokenDetector",
    "sendgrid:SendGridDetector",
    "slack:SlackDetector",
    "square_oauth:SquareOAuthDetector",
    "stripe:StripeDetector",
    "telegram_token:TelegramBotTokenDetector",
    "twilio:TwilioKeyDetector",
)
"""Detectors of detect-secrets that know a provider's form of a key; those that measure entropy flag too much."""

_KEY_LIKE = re.compile(
    r"A3T|A[BKS]IA|ACCA|aws|PRIVATE KEY|PuTTY|eyJ|[sr]k[-_][A-Za-z0-9]|gh[pousr]_|github_pat_|gl[a-z]{2,6}-|GR1348|xox|"
    r"hooks\.slack|AC[0-9a-f]{8}|SK[0-9a-f]{8}|-us\d|npm_|_authToken|pypi-|SG\.|sq0|AccountKey=|hf_|AIza|"
    r"\d{8}:[A-Za-z0-9_-]{30}|[MNO][\w-]{23}|://[^\s/:@]+:[^\s/@]+@|"
    r"(?i:passw(?:or)?d|passwort|pwd|secret|token|api[_ -]?key)\w*[\"']?\s*[:=]|(?i:passw(?:or)?d|passwort) +ist? "
)
_KEY_WORDS = ("passw", "pwd", "secret", "token", "key")
_SHORTEST_KEY = 16  # characters of one that no word announces
_BLOCK = re.compile(
    r"-{2,5} ?BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-{2,5}(?:.*?-{2,5} ?END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-{2,5})?",
    re.S,
)
_REST = re.compile(r"[A-Za-z0-9_-]*")
_OTHER_KEYS = re.compile(
    r"\b(?:sk-ant-[\w-]{20,}|sk-(?:proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{32,}|hf_[A-Za-z0-9]{30,}|AIza[\w-]{35}|"
    r"github_pat_\w{22,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|xox[abprs]-[\w-]{10,})"
)
_IN_ADDRESS = re.compile(r"://[^\s/:@]+:([^\s/@]+)@")
_ASSIGNED = re.compile(
    r"(?i:passw(?:or)?d|passwort|pwd|secret|token|api[_ -]?key)(?i:[_-]?(?:key|value|secret|token|text))?\d*[\"']?"
    r"\s*[:=]{1,2}\s*[\"'`]?([^\s\"'`,;<>{}\[\]()$]{8,200})(?![\w(\[])"
)
_TOLD = re.compile(
    r"\b(?i:passw(?:or)?d|passwort) +(?i:ist?) +[\"'`]?"
    r"(?=[^\s\"'`]*\d)(?=[^\s\"'`]*[A-Za-z])([^\s\"'`,;<>{}\[\]()]{8,200})"
)


@cache
def _plugins() -> tuple[Any, ...]:
    found = []
    for name in _PLUGINS:
        module, _, attribute = name.partition(":")
        found.append(getattr(import_module(f"detect_secrets.plugins.{module}"), attribute)())
    return tuple(found)


def may_hold_key(text: str) -> bool:
    """Whether a text may hold one: a long word, or one that announces a key, is ten times as fast as the pattern."""
    if max(map(len, text.split()), default=0) < _SHORTEST_KEY:
        small = text.lower()
        if not any(word in small for word in _KEY_WORDS):
            return False
    return _KEY_LIKE.search(text) is not None


def credentials(text: str) -> Iterator[tuple[str, int, int]]:
    """(what it is, start, end) of each find; some overlap others."""
    for match in _BLOCK.finditer(text):
        yield "a private key", *match.span()
    for plugin in _plugins():
        name = f"a key ({plugin.secret_type})"
        for form in plugin.denylist:
            for match in form.finditer(text):
                if (valid := getattr(plugin, "is_formally_valid", None)) and not valid(match.group()):
                    continue
                yield name, match.start(), _end_of_word(text, match.end())
    for match in _OTHER_KEYS.finditer(text):
        yield "a key", *match.span()
    for form in (_IN_ADDRESS, _ASSIGNED, _TOLD):
        for match in form.finditer(text):
            if _looks_secret(match.group(1)):
                yield "a password or key", *match.span(1)


def _end_of_word(text: str, place: int) -> int:
    rest = _REST.match(text, place)
    return rest.end() if rest else place


def _looks_secret(value: str) -> bool:
    """Letters mixed with digits or signs, and no stand-in for a value."""
    stand_in = re.search(r"(?i)example|your|xxx|\*\*\*|\.\.\.|placeholder|changeme|redacted|dummy", value)
    mixed = re.search(r"[\d!@#$%^&*+=?~]", value.rstrip("!?.*")) and re.search(r"[A-Za-z]", value)
    return not stand_in and bool(mixed)
