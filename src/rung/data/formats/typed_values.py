"""Typed values of Parquet, Arrow and Excel as plain values of JSON: dates as ISO text, NaN as a missing value."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal


def plain(value: object) -> object:
    """The value in JSON's types. Raises ValueError for bytes that are no text, and for infinities.

    A date-time at midnight of no time zone is a date, because Excel knows no other dates.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("holds an infinite number; give a real value or remove the row")
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time() and value.tzinfo is None
        return value.date().isoformat() if midnight else value.isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        if not value.is_finite():
            return plain(float(value))
        return int(value) if value == value.to_integral_value() and abs(value) < 10**15 else float(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as e:
            raise ValueError("holds bytes that are no text, such as a picture; remove the column") from e
    return str(value)
