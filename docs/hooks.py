"""For mkdocs: files of the repository that a page links to, such as results, become files of the site.

On GitHub the links of a page lead through the repository; the site has only docs/. So each file outside docs/ that a
page links to is published under repository/, and the links are turned there. The README is the site's own first page.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"\]\((?P<target>\.\./[^)#\s]+)")
README = "README.md"


def outside(page: str, target: str) -> str | None:
    """The path in the repository of what a page of docs/ links to; None where it lies in docs/."""
    path = normpath(PurePosixPath("docs") / PurePosixPath(page).parent / target)
    return None if path.startswith("docs/") else path


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files that pages link to."""
    repository = Path(config.docs_dir).parent
    for page in list(files.documentation_pages()):
        for link in LINK.finditer(page.content_string):
            path = outside(page.src_uri, link["target"])
            place = f"repository/{path}"
            if path and path != README and (repository / path).is_file() and place not in files.src_uris:
                files.append(File.generated(config, place, abs_src_path=str(repository / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links to files outside of docs/ to where the site has them."""

    def turned(link: re.Match[str]) -> str:
        path = outside(page.file.src_uri, link["target"])
        if path is None:
            return link[0]
        place = "index.md" if path == README else f"repository/{path}"
        return f"]({relpath(place, str(PurePosixPath(page.file.src_uri).parent))}"

    return LINK.sub(turned, markdown)
