"""Hooks of mkdocs: the pages of the repository become pages of a site, as `make docs` builds it.

README.md is the site's first page. Files outside docs/ that a page links to become part of the site, links to them
are changed accordingly, and a list may follow a text without a blank line, as on GitHub. mkdocs then checks every link.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
HOME = "README.md"
PAGES = (HOME, "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages of the repository's root."""
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
LIST = re.compile(r"^(?! |[-*#|>] |\d+\. |\|)(.+)\n(?=[-*] |1\. )", re.MULTILINE)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages of the root, and the files outside docs/ that pages link to."""
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    inside = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    for page in PAGES:
        files.append(File.generated(config, _on_site(page), content=texts[page]))
    linked = {target for page, text in {**texts, **inside}.items() for target in _targets(page, text)}
    for target in sorted(linked):
        place = _on_site(target)
        if files.get_file_from_path(place) is None and (ROOT / target).is_file():
            files.append(File.generated(config, place, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Change links to places on the site, and put a blank line before a list that follows a text."""
    place = page.file.src_uri
    source = _in_repository(place)

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        return link[1] + posixpath.relpath(_on_site(target), posixpath.dirname(place) or ".") + link[3]

    parts = FENCE.split(markdown)  # odd parts are blocks of code
    parts[::2] = [LIST.sub(r"\1\n\n", LINK.sub(moved, part)) for part in parts[::2]]
    return "".join(parts)


def _targets(page: str, text: str) -> list[str]:
    """List the files that a page links to, from the repository's root on."""
    folder = posixpath.dirname(page)
    prose = "".join(FENCE.split(text)[::2])
    return [posixpath.normpath(posixpath.join(folder, link[2])) for link in LINK.finditer(prose)]


def _on_site(path: str) -> str:
    """Return the place on the site of a file of the repository."""
    return "index.md" if path == HOME else path.removeprefix("docs/")


def _in_repository(place: str) -> str:
    """Return the file of the repository that is at a place on the site."""
    if place == "index.md":
        return HOME
    return f"docs/{place}" if (ROOT / "docs" / place).exists() else place
