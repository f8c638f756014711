"""Hooks of MkDocs: add the pages that the code writes, and turn links into the repository into links of the site.

Called by `mkdocs build` (see `mkdocs.yml`). Nothing here reads the network.
"""
import logging
import pkgutil
import posixpath
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

from markdown.extensions.toc import slugify
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parents[1]
LOG = logging.getLogger("mkdocs.hooks.k3dn")
sys.path.insert(0, str(ROOT))

from k3dn_plugin.commands._reference_pages import commands_page, components_page, options_page  # noqa: E402

# Pages that are kept beside the code; the site shows them under these names.
KEPT_ELSEWHERE = {"datasets/README.md": "guides/datasets.md",
                  "datasets/photographs/README.md": "guides/photographs.md", "CHANGELOG.md": "changelog.md",
                  "SECURITY.md": "security.md"}
# The floors of the house, from top to bottom, with a page of the API each.
FLOORS = {"commands": "the console command `k3dn`", "doctor": "what is installed, missing or broken",
          "bridges": "BasicSR, mmengine, torchvision, Ray", "comparison": "head-to-head tables and reports",
          "analysis": "what is inside a restorer", "training": "the loop, stages, hooks and state",
          "evaluation": "metrics, protocols and results", "zoo": "weights and published checkpoints",
          "inference": "restoring frames and files", "simulation": "dual-pixel pairs from photographs",
          "data": "stores, samples, layouts, camera files", "losses": "what training minimizes",
          "archs": "the restorers", "modules": "their swappable parts", "layers": "building blocks",
          "base": "registry, options, errors, files"}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those of the folder."""
    pages = {"reference/options.md": options_page(), "reference/commands.md": commands_page(),
             "reference/components.md": components_page(), "api/index.md": _api_index(),
             **{f"api/{floor}.md": _api_page(floor) for floor in FLOORS},
             **{page: (ROOT / path).read_text(encoding="utf-8") for path, page in KEPT_ELSEWHERE.items()}}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point relative links at pages of the site; those into the code at its page of the API."""
    path = page.file.src_uri
    source = next((kept for kept, there in KEPT_ELSEWHERE.items() if there == path), f"docs/{path}")

    def rewrite(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if there in KEPT_ELSEWHERE:
            there = f"docs/{KEPT_ELSEWHERE[there]}"
        elif there == "README.md":
            there = "docs/index.md"
        elif there == "CONTRIBUTING.md":
            there = "docs/contributing.md"
        if there.startswith("k3dn_plugin/"):
            return _link_to_code(text, there, path)
        if there.startswith("docs/") and files.get_file_from_path(there[5:]):
            return f"[{text}]({posixpath.relpath(there[5:], posixpath.dirname(path) or '.')}{anchor or ''})"
        return found[0]

    return re.sub(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)", rewrite, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Make links of the citations in docstrings: `docs/networks/k3dn.md`, section 5.3."""

    def link(found: re.Match[str]) -> str:
        file = files.get_file_from_path(f"networks/{found['name']}.md")
        if file is None:
            raise FileNotFoundError(f"{page.file.src_uri} cites {found[0]}, which is no page")
        section = (found["section"] or "").rstrip(".")
        anchor = _sections(ROOT / "docs" / file.src_uri).get(section, "")
        return f'<a href="{get_relative_url(file.url, page.file.url)}{anchor}">{found[0]}</a>'

    return re.sub(r"(?:<code>)?docs/networks/(?P<name>\w+)\.md(?:</code>)?(?:,\s+sections?\s+(?P<section>[\d.]+))?",
                  link, html)


def on_post_build(config: Any) -> None:
    """Warn, which the strict build refuses, of every link inside the site that leads nowhere."""
    site = Path(config.site_dir)
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', html)) for page, html in pages.items()}
    for page, html in pages.items():
        # 404.html is served from anywhere, so its links are absolute.
        for link in set(re.findall(r'(?:href|src)="([^"]+)"', html)) if page.name != "404.html" else ():
            target, anchor = urldefrag(unquote(link))
            there = (page.parent / target).resolve() if target else page
            if ":" in target or (there.exists() and (not anchor or anchor in anchors.get(there, {anchor}))):
                continue
            LOG.warning("%s: the link %s leads nowhere", page.relative_to(site), link)


def _sections(path: Path) -> dict[str, str]:
    """Anchors of a page's numbered sections by number."""
    headings = re.findall(r"(?m)^#{2,4} (.+)$", path.read_text(encoding="utf-8"))
    # As Markdown does: the heading's text without its marks.
    plain = [re.sub(r"[`*]", "", heading) for heading in headings]
    return {found[1]: "#" + slugify(text, "-") for text in plain if (found := re.match(r"(\d+(?:\.\d+)*)\.? ", text))}


def _link_to_code(text: str, there: str, path: str) -> str:
    """A link to the API's page of a file of the package; the text alone for what has no page (a table, a template)."""
    if not there.endswith(".py") and not (ROOT / there).is_dir():
        return f"`{there}`" if text == there else text
    floor = there.split("/")[1] if there.count("/") > 1 or not there.endswith(".py") else "base"
    anchor = there.removesuffix("/__init__.py").removesuffix(".py").rstrip("/").replace("/", ".")
    page = posixpath.relpath(f"api/{floor}.md", posixpath.dirname(path) or ".")
    anchor = f"#{anchor}" if anchor in _modules(floor) else ""
    return f"[{text}]({page}{anchor})"


def _modules(floor: str) -> list[str]:
    """Dotted names of the public modules of a floor that have something to show, in the order of the tree."""
    if floor == "base":
        return [f"k3dn_plugin.{path.stem}" for path in sorted((ROOT / "k3dn_plugin").glob("*.py"))
                if not path.stem.startswith("_")]
    package = import_module(f"k3dn_plugin.{floor}")
    found = [info.name for info in pkgutil.walk_packages(package.__path__, prefix=f"k3dn_plugin.{floor}.")]
    return [f"k3dn_plugin.{floor}", *(name for name in found if not name.rsplit(".", 1)[-1].startswith("_"))]


def _api_index() -> str:
    lines = ["# API", "",
             "Generated from the docstrings, a page for each floor of [the tree](../architecture.md), from top to "
             "bottom. `k3dn_plugin.load_restorer` is the one way in to a restorer; everything that an option "
             "file can name is listed under [components](../reference/components.md).", "",
             "| page | what is there |", "|---|---|"]
    return "\n".join([*lines, *(f"| [`{floor}`]({floor}.md) | {words} |" for floor, words in FLOORS.items()), ""])


def _api_page(floor: str) -> str:
    title = f"`k3dn_plugin.{floor}`" if floor != "base" else "The ground floor"
    return "\n".join([f"# {title}", "", f"{FLOORS[floor][0].upper()}{FLOORS[floor][1:]}.", "",
                      *(f"::: {name}\n" for name in _modules(floor))])
