"""A profile as one page that needs nothing else: tables and pictures inline, no script. Needs the extra `profile`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from edgeasr.profile.plots import PLOTS, svg
from edgeasr.profile.tables import Section, sections

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p { margin: .3rem 0; max-width: 50rem; }
.lead { color: #616e7c; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; margin: .6rem 0; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid #e4e7eb; }
th { color: #616e7c; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
svg { width: 100%; height: auto; display: block; margin: .6rem 0; }
"""
# Which picture stands below which table.
_PICTURES = {"step": ("roofline", "operators"), "machine": ("bandwidth",), "run": ("latency",), "chunks": ("chunks",)}


def html_page(report: Mapping[str, Any]) -> str:
    """The page. report: as `profile_report` gives it, also by way of JSON"""
    title = f"Profile of {report['model']} on {report['machine']['name']}"
    parts = [f"<h1>{escape(title)}</h1>"]
    shown: set[str] = set()
    for section in sections(report):
        parts.append(_section(section))
        pictures = _PICTURES.get(section.name, ())
        parts += [svg(report, name) for name in pictures]
        shown |= set(pictures)
    assert shown <= set(PLOTS)
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    lines = [f"<p>{escape(line)}</p>" for line in section.lines]
    table = _table(section.header, section.rows) if section.rows else ""
    return f"<h2>{escape(section.title)}</h2>\n{''.join(lines)}\n{table}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{body}</table></div>'
