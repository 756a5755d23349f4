"""The course as pages that need nothing but a browser: one for each lesson, a list of them, and all in one file for paper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from producer import output
from producer.learning.lesson import Lesson, Question, Step
from producer.learning.running import IN_EVERY_ORDER
from producer.learning.showing import CAPTURED, spoken

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{nav}<main>
{body}</main>
</body>
</html>
"""
HANDOUT = "handout.html"
_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


def write(lessons: list[Lesson], course: Path, into: Path) -> None:
    """Write the pages.

    Args:
        lessons: All lessons, in their order.
        course: Where ``style.css`` lies.
        into: The folder; made if it is not there.

    Raises:
        OutputFailed: They cannot be written.
    """
    style = (course / "style.css").read_text()
    pages = {"index.html": ("The course", _index(lessons)), HANDOUT: ("The course", _handout(lessons))}
    pages |= {f"{lesson.name}.html": (lesson.title, page(lesson)) for lesson in lessons}
    with output.written(str(into)):
        into.mkdir(parents=True, exist_ok=True)
        for name, (title, body) in pages.items():
            nav = "" if name in ("index.html", HANDOUT) else '<nav><a href="index.html">All lessons</a></nav>\n'
            text = PAGE.format(title=escape(title), style=style, nav=nav, body=body)
            (into / name).write_text(text, encoding="utf-8")


def page(lesson: Lesson, heading: int = 1) -> str:
    """A lesson as HTML, without the page around it.

    Args:
        lesson: The lesson.
        heading: Level of its heading.
    """
    know = "".join(f"<li>{_inline(each)}</li>\n" for each in lesson.know)
    sources = "".join(f"<li>{_source(each)}</li>\n" for each in lesson.sources)
    steps = "".join(_step(lesson, step, heading + 1) for step in lesson.steps)
    return (
        f'<article id="{lesson.name}">\n<h{heading}>{_inline(lesson.title)}</h{heading}>\n'
        f"<p>{lesson.minutes} minutes. To take it: <code>producer learn {lesson.name}</code></p>\n"
        f"<p>After it you know:</p>\n<ul>\n{know}</ul>\n{_html(lesson.text[''])}{steps}"
        + (f"<h{heading + 1}>To read on</h{heading + 1}>\n<ul>\n{sources}</ul>\n" if sources else "")
        + "</article>\n"
    )


def _step(lesson: Lesson, step: Step, level: int) -> str:
    text = lesson.text["Explain" if step is lesson.steps[0] else step.title]
    questions = "".join(_question(question, step) for question in step.questions)
    beliefs = "".join(_beliefs(step))
    answers = f"<ul>\n{beliefs}</ul>\n" if beliefs else ""
    return (
        f"<section>\n<h{level}>{step.title}</h{level}>\n"
        f'<pre tabindex="0"><code>{escape(step.source)}</code></pre>\n'
        f"<p>Before you go on, write down what it prints.</p>\n{questions}"
        f"<details>\n<summary>What it printed, and why</summary>\n{_html(text)}{answers}</details>\n</section>\n"
    )


def _question(question: Question, step: Step) -> str:
    what = f" ({', '.join(question.choices)})" if question.choices else ""
    blanks = "".join(f"<li>on {place}: <span class='blank'></span></li>\n" for place in step.places)
    return f"<p><strong>{escape(spoken(question))}</strong>: {_inline(question.ask)}{escape(what)}</p>\n<ul>\n{blanks}</ul>\n"


def _beliefs(step: Step) -> Iterator[str]:
    for question in step.questions:
        for belief in question.beliefs:
            where = "" if belief.places == step.places else f" on {' and '.join(belief.places)}"
            yield (
                f"<li>Who said {escape(str(belief.leads_to))}{where} ({escape(spoken(question))}) often believes"
                f" {_inline(belief.says[:1].lower() + belief.says[1:])}</li>\n"
            )


def _index(lessons: Iterable[Lesson]) -> str:
    rows = "".join(
        f'<li><a href="{lesson.name}.html">{_inline(lesson.title)}</a>, {lesson.minutes} minutes</li>\n'
        for lesson in lessons
    )
    return (
        "<h1>The course</h1>\n<p>Each lesson asks what a small program prints on threads, on processes and on a cluster,"
        f' before it runs. All of them in one file, for paper: <a href="{HANDOUT}">handout</a>.</p>\n<ol>\n{rows}</ol>\n'
    )


def _handout(lessons: Iterable[Lesson]) -> str:
    body = "".join(page(lesson, 2) for lesson in lessons)
    return f"<h1>The course</h1>\n{body.replace('<details>', '<details open>')}"


def _html(text: str) -> str:
    """Markdown as HTML, each quoted output under a line that says where it was printed."""
    quoted = CAPTURED.sub(
        lambda found: f"`{found['program']}` {_where(found['place'])} printed:\n\n```text\n{found['text']}```\n", text
    )
    html: str = _markdown.render(quoted)
    return html


def _where(place: str) -> str:
    return "in every order (`producer explore`)" if place == IN_EVERY_ORDER else f"on {place}"


def _inline(text: str) -> str:
    html: str = _markdown.renderInline(text)
    return html


def _source(text: str) -> str:
    """A source: an address, and in brackets what to look for there."""
    words = [f'<a href="{escape(word)}">{escape(word)}</a>' if word.startswith("https://") else escape(word)
             for word in text.split()]  # fmt: skip
    return " ".join(words)
