"""Exchanges of senders, whose caller has to do something more with them."""

from collections.abc import Callable

from batchrun.models import Exchange


class Kept(Exchange):
    # its sender keeps it until `stored` is called
    stored: Callable[..., None]


class Lost(Exchange):
    # `late` is called where it ends after all
    late: Callable[[Exchange], None] | None = None
