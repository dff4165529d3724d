"""Why a model stopped, whatever a provider calls it: the table `providers/finish.toml`, compiled."""

from batchrun.models import Flag
from batchrun.providers import table

_NONE: frozenset[Flag] = frozenset()
_MEANINGS: dict[str, frozenset[Flag] | None] = {
    "whole": _NONE,
    "cut": frozenset({Flag.TRUNCATED}),
    "filtered": frozenset({Flag.FILTERED}),
    "refused": frozenset({Flag.REFUSED}),
    "broken": None,
}
_ODD = frozenset({Flag.ODD})

FLAGS: dict[str | None, frozenset[Flag] | None] = {
    None: _NONE,
    **{word: _MEANINGS[meaning] for meaning, words in table("finish").items() for word in words},
}
"""The flags of a reply by the word with which it ended, None where it broke off; words are spelled as in the table."""


def flags_of(word: str | None) -> frozenset[Flag] | None:
    """The same for a word in any spelling; `odd` for one that is not known."""
    if word in FLAGS:
        return FLAGS[word]
    plain = str(word).partition(":")[0].strip().lower().replace("-", "_").replace(" ", "_")
    return FLAGS.get(plain or None, _ODD)
