"""The page "Pictures" as somebody uses it, in a real browser."""

from __future__ import annotations

from view_page import Page

VALUES = "[...document.querySelectorAll('.grid-cell')].sort((a, b) => a.dataset.index - b.dataset.index).map((one) => one.innerText)"  # noqa: E501


def test_pictures_are_sorted_opened_and_remembered_in_the_address(page: Page) -> None:
    page.go("#/pictures")
    page.until(
        "[...document.images].length > 4 && [...document.images].every((one) => one.naturalWidth)"
    )
    page.choose("#sort", "aesthetic")
    page.until("location.hash.includes('sort=aesthetic') && document.querySelector('.told')")
    shown = [float(text) for text in page.value(VALUES)]
    assert shown == sorted(shown, reverse=True)
    assert page.browser.complaints == []
