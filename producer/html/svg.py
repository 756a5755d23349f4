"""Elements of SVG and HTML as text."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def el(tag: str, *inside: str | Iterable[str], **attributes: object) -> str:
    """An element.

    Args:
        tag: Its name.
        inside: What is in it, as markup already.
        attributes: Its attributes; ``class_`` is ``class``, other underscores are hyphens, None is left out.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(num(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    content = "".join(part if isinstance(part, str) else "".join(part) for part in inside)
    return f"<{tag}{given}>{content}</{tag}>"


def text(x: float, y: float, words: str, class_: str = "", **attributes: object) -> str:
    """Words at a place of a drawing."""
    return el("text", escape(words), x=x, y=y, class_=class_ or None, **attributes)


def num(value: object) -> str:
    """A number without digits that nobody sees; anything else as its text."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
