"""The documentation: its links, the sections that docstrings cite, and the pages that the code writes."""
import ast
import importlib.util
import posixpath
import re
import types
from pathlib import Path

import pytest
import yaml

from k3dn_plugin.commands import commands
from k3dn_plugin.commands._reference_pages import commands_page, components_page, options_page
from k3dn_plugin.option_schema import OptionKeys, PhaseOptions
from k3dn_plugin.registry import REGISTRIES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("datasets/**/*.md")])
CITATION = r"docs/networks/(\w+)\.md`?(?:,? sections? ((?:\d[\d.]*(?:, | and | to )?)+))?"
# Written by docs/hooks.py when the site is built.
BUILT = ("docs/reference/", "docs/api/", "docs/guides/datasets.md", "docs/guides/photographs.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+\.\w+)(?:#[^)]*)?\)", text):
        there = posixpath.normpath(posixpath.join(page.parent.relative_to(ROOT).as_posix(), target))
        assert (ROOT / there).exists() or there.startswith(BUILT), f"{page.relative_to(ROOT)}: {target}"


def test_pages_of_the_site_link_to_pages_of_the_site():
    """What the strict build would refuse: a Markdown file of the repository that the site does not have."""
    tree = ast.parse((ROOT / "docs" / "hooks.py").read_text(encoding="utf-8"))
    kept = next(ast.literal_eval(node.value) for node in tree.body
                if isinstance(node, ast.Assign) and node.targets[0].id == "KEPT_ELSEWHERE")
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        if not name.startswith("docs/") and name not in kept:
            continue
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            there = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            assert there.startswith("docs/") or there in (*kept, "README.md", "CONTRIBUTING.md"), (
                f"{name} links {there}: add it to KEPT_ELSEWHERE of docs/hooks.py and to mkdocs.yml")


def test_every_page_is_in_the_navigation():
    def leaves(entry):
        if isinstance(entry, str):
            return [entry]
        return [leaf for part in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(part)]

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert there <= set(leaves(site["nav"]))


def test_the_sections_that_the_code_cites_are_there():
    citations = []
    for path in sorted([*ROOT.glob("k3dn_plugin/**/*.py"), *ROOT.glob("tests/**/*.py")]):
        text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text(encoding="utf-8"))  # a citation may be folded
        for name, cited in re.findall(CITATION, text):
            citations.append((path, name, re.findall(r"\d+(?:\.\d+)*", cited)))
    assert len(citations) > 40
    for path, name, sections in citations:
        page = ROOT / "docs" / "networks" / f"{name}.md"
        assert page.is_file(), f"{path.relative_to(ROOT)} cites {page.name}"
        headings = re.findall(r"(?m)^#{2,4} (\d+(?:\.\d+)*)\.? ", page.read_text(encoding="utf-8"))
        assert set(sections) <= set(headings), f"{path.relative_to(ROOT)} cites {page.name}, sections {sections}"


def test_every_restorer_has_a_page_of_its_network():
    text = (ROOT / "docs" / "networks" / "index.md").read_text(encoding="utf-8")
    ours = [name for name in REGISTRIES["ARCHS"].names()
            if REGISTRIES["ARCHS"].get(name).__module__.startswith("k3dn_plugin.") and name != "PreservedRestorer"]
    assert [name for name in ours if f"`{name}`" not in text] == []


def test_every_option_has_its_row():
    page = options_page()
    for key in [*OptionKeys.model_fields, *PhaseOptions.model_fields]:
        assert f"| `{key}` |" in page
    for block in ("datasets.train", "train.stages[i]", "train.stages[i].phases[i]", "logger"):
        assert f"## `{block}`" in page
    assert "| `print_freq` | int, at least 1 | `100` |" in page
    assert "(not described yet)" not in page


def test_every_command_has_its_help(monkeypatch):
    monkeypatch.setenv("COLUMNS", "33")
    page = commands_page()
    for name in commands():
        assert f"### k3dn {name}\n" in page and f"usage: k3dn {name} " in page
    assert max(map(len, page.splitlines())) > 60  # not folded to the terminal's 33 columns


def test_every_component_has_its_row():
    page = components_page()
    for registry in REGISTRIES.values():
        for name in registry.names():
            component = registry.get(name)
            if getattr(component, "__module__", type(component).__module__).startswith("k3dn_plugin."):
                assert f"\n| `{name}` |" in page
    assert "`iterations`" not in page and "`base_channels=48`" in page
    for row in page.splitlines():
        if row.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", row)) == 4, row


def test_the_build_warns_of_links_that_lead_nowhere(tmp_path, caplog):
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    (tmp_path / "other.html").write_text('<h2 id="there">', encoding="utf-8")
    (tmp_path / "index.html").write_text(
        '<a href="other.html#there"><a href="other.html#gone"><a href="gone.html"><img src="https://x.org/y.png">',
        encoding="utf-8")
    hooks.on_post_build(types.SimpleNamespace(site_dir=str(tmp_path)))
    assert sorted(record.getMessage().split()[3] for record in caplog.records) == ["gone.html", "other.html#gone"]
