"""How durations and dates are written, in headers and in settings."""

import time


def go_duration(seconds: float) -> str:
    """Seconds, rounded up to a millisecond, as Go's time.Duration writes them: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    # A wait of 0.1 s computed as 0.1000000001 is still 100 ms.
    millis = -int(-(seconds * 1000 - 1e-6) // 1)
    if millis < 1000:
        return f"{millis}ms" if millis > 0 else "0s"
    minutes, millis = divmod(millis, 60_000)
    whole, part = divmod(millis, 1000)
    text = f"{whole}.{part:03d}".rstrip("0") if part else f"{whole}"
    if minutes < 60:
        return f"{minutes}m{text}s" if minutes else f"{text}s"
    return f"{minutes // 60}h{minutes % 60}m{text}s"


def plain(number: float) -> str:
    """A number without an exponent, to nine places: `0.00001`, where `str` writes `1e-05`."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def http_date(epoch: float) -> str:
    """A date as HTTP writes it (RFC 9110, section 5.6.7)."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(epoch))
