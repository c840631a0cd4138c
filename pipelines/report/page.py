"""The page's frame: templates that escape everything, one style sheet, and a strict policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from curate.base.telling.words import visible
from pipelines.report import text
from pipelines.report.charts import bar
from pipelines.report.palette import Palette

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A finished part of the page. `name` is its anchor."""

    name: str
    title: str
    html: Markup


class Page:
    """Renders sections and puts them together. Every value that is no Markup is escaped."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for form in (
            text.counted,
            text.integer,
            text.percent,
            text.number,
            text.points,
            text.seconds,
            text.size,
            text.words,
        ):
            self._environment.filters[form.__name__] = form
        self._environment.globals.update(palette=palette, bar=bar)

    def section(self, name: str, title: str, **values: Any) -> Section:
        """Render `templates/NAME.html.jinja`."""
        template = self._environment.get_template(f"{name}.html.jinja")
        return Section(name, title, Markup(template.render(**values)))

    def document(
        self,
        title: str,
        subtitle: str,
        sections: Sequence[Section],
        unreadable: Sequence[str] = (),
    ) -> str:
        """The whole HTML file.

        The Content-Security-Policy forbids everything but inlined pictures and this one style
        sheet, named by its hash: no script, no request, no inline style attribute.

        Args:
            unreadable: keys of sampled pictures that could not be decoded.
        """
        style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
        policy = (
            f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'"
        )
        html = self._environment.get_template("page.html.jinja").render(
            title=title,
            subtitle=subtitle,
            sections=sections,
            unreadable=unreadable,
            policy=policy,
            style=Markup(style),
        )
        return visible(html)
