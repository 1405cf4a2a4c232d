"""The cache folder under its earlier name; it lies in `rung.cache`."""

from __future__ import annotations

from rung.cache import cache_folder as cache_folder
