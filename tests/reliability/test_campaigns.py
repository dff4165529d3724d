"""The words of the campaigns that take some."""

from collections.abc import Callable

import campaign_ray
import campaign_scale
import pytest


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (campaign_scale.main, []),
        (campaign_scale.main, ["rays"]),
        (campaign_scale.main, ["20"]),
        (campaign_scale.main, ["ray", "many"]),
        (campaign_ray.main, ["kill_worker"]),
        (campaign_ray.main, ["100", "--fault", "kill"]),
    ],
)
def test_unknown_words_of_a_campaign_are_refused(
    main: Callable[[list[str]], int], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "usage: " in capsys.readouterr().err
