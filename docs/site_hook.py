"""A hook of MkDocs: pages that are right on GitHub are right in the site too.

Links to files outside docs/ (`../CONTRIBUTING.md`) open the file on GitHub; the site gets a copy of it below
`repository/`. Lists that follow a line of text begin without an empty line on GitHub; Python-Markdown wants one. A
picture that has a dark form beside it (x.png, x_dark.png) is shown in the form of the reader's scheme. In docstrings,
`__init__.py` is a file and no bold text.
"""

import posixpath
import re
from pathlib import Path

from markdown import Extension, Markdown
from markdown.inlinepatterns import SimpleTextInlineProcessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

COPIES = "repository/"
LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")
ITEM = re.compile(r"(\* |- |\d+\. )")
PICTURE = re.compile(r"(!\[[^\]]*\]\()([^)#\s:]+)(\.png)\)")
FENCE = re.compile(r"(```|~~~)")
FRONT = {"README.md": "index.md"}  # pages of which the site has its own form


class SpecialNames(Extension):
    """Take `__init__` and its like as they are: bold text is written with asterisks."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(SimpleTextInlineProcessor(r"(__\w+__)"), "special_names", 70)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add our extension of Markdown, for pages and docstrings."""
    config.markdown_extensions.append(SpecialNames())
    return config


def place_in_repository(uri: str) -> str:
    """Return the path of a page's file in the repository. uri: its path in the site's sources."""
    return uri.removeprefix(COPIES) if uri.startswith(COPIES) else f"docs/{uri}"


def place_in_site(path: str) -> str:
    """Return the path in the site's sources of a file of the repository."""
    if path in FRONT:
        return FRONT[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else COPIES + path


def targets(text: str, uri: str) -> list[str]:
    """Return the files of the repository that a page links to, as paths in it."""
    folder = posixpath.dirname(place_in_repository(uri))
    return [posixpath.normpath(posixpath.join(folder, link[2])) for link in LINK.finditer(text)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that a page links to, and those that they link to in turn."""
    root = Path(config.config_file_path).parent
    waiting = [(page.src_uri, page.content_string) for page in files.documentation_pages()]
    while waiting:
        uri, text = waiting.pop()
        for path in targets(text, uri):
            copy = place_in_site(path)
            if not copy.startswith(COPIES) or files.get_file_from_path(copy) or not (root / path).is_file():
                continue  # a link to nothing stays, and --strict names it
            files.append(File.generated(config, copy, abs_src_path=str(root / path)))
            if path.endswith(".md"):
                waiting.append((copy, (root / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with links inside the site, and with an empty line before each list."""
    uri = page.file.src_uri
    here, folder = posixpath.dirname(place_in_repository(uri)), posixpath.dirname(uri)

    def redirect(link: re.Match[str]) -> str:
        target = place_in_site(posixpath.normpath(posixpath.join(here, link[2])))
        return link[1] + posixpath.relpath(target, folder or ".") + link[3]

    return separate_lists(LINK.sub(redirect, show_by_scheme(markdown, Path(page.file.abs_src_path or uri).parent)))


def show_by_scheme(markdown: str, folder: Path) -> str:
    """Return the text with both forms of each picture that has a dark one; Material shows one. folder: of the page."""

    def both(picture: re.Match[str]) -> str:
        start, name, end = picture.groups()
        if not (folder / f"{name}_dark{end}").exists():
            return picture[0]
        return f"{start}{name}{end}#only-light) {start}{name}_dark{end}#only-dark)"

    return PICTURE.sub(both, markdown)


def separate_lists(markdown: str) -> str:
    """Return the text with an empty line between a paragraph and the list that follows it."""
    lines: list[str] = []
    fenced = listed = False
    for line in markdown.split("\n"):
        starts = not fenced and bool(ITEM.match(line))
        if starts and not listed and lines and lines[-1].strip():
            lines.append("")
        fenced ^= bool(FENCE.match(line.lstrip()))
        listed = starts or (listed and bool(line.strip()))
        lines.append(line)
    return "\n".join(lines)
