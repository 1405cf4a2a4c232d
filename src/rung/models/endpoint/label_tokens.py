"""The tokens of labels, by the word of llama.cpp's server.

Under a grammar of texts a model may spell a label with any tokens: its greedy first token is the likeliest that begins
some label, say "n", and not the likeliest label. Under a grammar of tokens it chooses among the labels as a local model
does. Source: llama.cpp, grammars/README.md, "Tokens".
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rung.models.endpoint.http_connection import ConnectionFault
from rung.models.endpoint.transport import Headers, Transport

_TIMEOUT_S = 10.0


async def label_tokens(endpoint: str, headers: Headers, labels: Sequence[str]) -> list[list[int]]:
    """Token ids of each label; empty where the server does not tell them. endpoint: its base address, …/v1."""
    transport = Transport(endpoint.removesuffix("/v1"))
    try:
        found = []
        for label in labels:
            body = json.dumps({"content": label}).encode()
            reply = await transport.exchange("POST", "/tokenize", headers=headers, body=body, timeout_s=_TIMEOUT_S)
            ids = json.loads(reply.body)["tokens"] if reply.status == 200 else []
            if not ids or not all(isinstance(i, int) for i in ids):
                return []
            found.append([int(i) for i in ids])
        return found
    except (ConnectionFault, ValueError, KeyError, TypeError):
        return []
    finally:
        await transport.aclose()


def token_grammar(tokens: Sequence[Sequence[int]]) -> str:
    """A grammar (GBNF) whose answers are exactly these sequences of tokens."""
    return "root ::= " + " | ".join(" ".join(f"<[{token}]>" for token in label) for label in tokens)
