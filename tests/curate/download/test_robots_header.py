"""Which X-Robots-Tag headers forbid us a picture."""

import pytest

from curate.download.robots import disallowing_directive

DISALLOWED = {"noai", "noimageai", "noindex"}


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        (["all"], None),
        (["noai"], "noai"),
        (["NoImageAI , nofollow"], "noimageai"),
        (["nofollow", "noindex"], "noindex"),
        (["none"], "none"),
        (["otherbot: noai, noindex"], None),
        (["captionlab: noai"], "noai"),
        (["otherbot: noai, captionlab: noindex"], "noindex"),
        (["max-image-preview: large, noai"], "noai"),
        (["unavailable_after: Wed, 25 Jun 2025 15:00:00 GMT, noai"], "noai"),
    ],
)
def test_a_directive_counts_when_it_is_for_everybody_or_for_us(headers, found):
    assert disallowing_directive(headers, "captionlab", DISALLOWED) == found


def test_nothing_is_refused_when_no_directive_is_respected():
    assert disallowing_directive(["noai, none"], "captionlab", frozenset()) is None
