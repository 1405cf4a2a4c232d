from __future__ import annotations

from http_server import start as start
