"""Writes what is made of the options that the Rust structs declare.

These are Python's classes, the stub of `Loader` and docs/options.md.

    python bindings/python/reference.py            # writes
    python bindings/python/reference.py --check    # says what differs, exit code 1

Run it after an option was added, removed or described anew.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "python" / "tldr_loader"
WIDTH = 110
PATH = "str | os.PathLike[str]"

PRESETS = '''
    @classmethod
    def tldr(cls) -> Selection:
        """The paper's: of the better aligned half a uniform quarter of every cluster."""
        return cls(keep_ratio=0.25, gate=Top(0.5), quota="proportional")

    @classmethod
    def random(cls, keep_ratio: float) -> Selection:
        """A plain random share."""
        return cls(keep_ratio=keep_ratio, gate=Top(1.0), quota="random")

    @classmethod
    def full(cls) -> Selection:
        """Everything, through the same pipeline."""
        return cls.random(1.0)
'''

Field = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    differs = False
    for path, text in files().items():
        found = path.read_text() if path.exists() else ""
        if found == text:
            continue
        differs = True
        if check:
            lines = difflib.unified_diff(
                found.splitlines(), text.splitlines(), str(path), "made of the options", n=1
            )
            print("\n".join(lines))
        else:
            path.write_text(text)
            print(f"wrote {path}")
    if check and differs:
        print("made anew by: python bindings/python/reference.py")
    return int(check and differs)


def files() -> dict[Path, str]:
    """Every file that is made of the options, with its text."""
    groups = describe()
    *classes, config = groups
    stub = PACKAGE / "_native.pyi"
    page = HERE.parent.parent / "docs" / "options.md"
    return {
        PACKAGE / "_options.py": options(classes, config),
        stub: with_loader(stub.read_text(), config),
        page: reference(groups),
    }


def describe() -> list[Field]:
    """The options, of the native module by itself: the package imports what is written here."""
    spec = importlib.util.spec_from_file_location("_native", PACKAGE / "_native.abi3.so")
    assert spec is not None
    assert spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    described: list[Field] = native._describe()
    return described


def options(classes: list[Field], config: Field) -> str:
    names = ", ".join(f'"{group["name"]}"' for group in sorted(classes, key=lambda group: group["name"]))
    text = f'''"""The groups of options, made by bindings/python/reference.py of what Rust declares."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from tldr_loader._groups import Group
from tldr_loader._notation import AtLeast, Best, Cap, Coin, Concat, Gated, Mix, Tempered, Top

__all__ = [{names}]

LOADER = """\\
{loader_doc(config, "")}"""
'''
    for group in classes:
        only = "" if group["fields"][0]["name"] == "urls" else ", kw_only=True"
        text += f"\n\n@dataclass(frozen=True{only}, repr=False)\nclass {group['name']}(Group):\n"
        first, _, rest = summary(group["doc"]).partition(". ")
        about = f'    """{first.rstrip(".")}.'
        if rest:
            about += "\n\n" + textwrap.indent(textwrap.fill(rest, WIDTH - 4), "    ")
        text += f'{about}\n\n    Args:\n{arguments(group["fields"], "        ")}    """\n\n'
        for own in group["fields"]:
            text += f"    {own['name']}: {annotation(own)}{default(own)}\n"
            if own["name"] == "urls":
                text += "    _: KW_ONLY\n"
        if group["name"] == "Selection":
            text += PRESETS
    return text


def annotation(own: Field) -> str:
    kind = own["python"].replace("'", '"')
    if own["name"] == "judge":
        kind = f"{PATH} | object"
    optional = own["default"] is None
    return f"{kind} | None" if optional else kind


def default(own: Field) -> str:
    value = own["default"]
    if own["is_group"]:
        return f" = field(default_factory=lambda: {own['python']}())"
    if own["is_secret"]:
        return " = field(default=None, repr=False)"
    if own["name"] == "urls":
        return ""
    if value == {}:
        return " = field(default_factory=dict)"
    if isinstance(value, list):
        value = tuple(value)
    if own["python"] == "float" and isinstance(value, int):
        value = float(value)
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return f" = {text}"


def with_loader(stub: str, config: Field) -> str:
    """The stub, with the arguments and the text of `Loader`."""
    keywords = "".join(f"        {line},\n" for line in signature(config))
    made = "    def __new__(\n        cls,\n        source: _Sources,\n        *,\n"
    made += f"{keywords}    ) -> Loader: ...\n"
    stub = re.sub(
        r"    def __new__\(\n        cls,\n        source: _Sources,.*?\) -> Loader: \.\.\.\n",
        lambda _: made,
        stub,
        count=1,
        flags=re.S,
    )
    doc = f'class Loader:\n    """{loader_doc(config, "    ")}    """\n'
    return re.sub(r'class Loader:\n    """.*?"""\n', lambda _: doc, stub, count=1, flags=re.S)


OBJECTS = {
    "captioner": "Captioner | FittedScorer | _Path | None = None",
    "ledger": "Ledger | _Path | None = None",
    "device": 'str | torch.device = "cpu"',
    "tokenizer": "_Path | None = None",
    "plan": "_Path | None = None",
}
"""Types of what is no plain data, too."""


def signature(config: Field) -> list[str]:
    lines = []
    for own in config["fields"]:
        name = own["name"]
        if name == "sources":
            continue
        if name in OBJECTS:
            lines.append(f"{name}: {OBJECTS[name]}")
        elif own["is_group"]:
            lines.append(f"{name}: {own['python']} | None = None")
        else:
            # The stub imports the name alone.
            lines.append(f"{name}: {annotation(own)}{default(own)}".replace("os.PathLike", "PathLike"))
    return lines


ABOUT = """A stream of batches of kept samples, epoch after epoch.

Iterating yields an epoch; with its last batch the loader moves on to the next one. The sequence of
batches depends on the data, the captioner directory, the options and the seed: not on threads, ranks or
machine load. `len(loader)` is the number of batches in the current epoch.

Args:
"""

SOURCE = (
    "Shards, one pattern or several: paths or URLs, with `{00000..00331}` ranges, globs or folders. Or a "
    "`Source`, which says how a corpus is read; or a list of these, mixed by their weights."
)


def loader_doc(config: Field, indent: str) -> str:
    own = [{"name": "source", "doc": SOURCE}, *(one for one in config["fields"] if one["name"] != "sources")]
    lines = ABOUT.splitlines()
    about = "\n".join([lines[0], *(indent + line if line else "" for line in lines[1:])])
    raises = f"""
{indent}Raises:
{indent}    ConfigError: An option is not known, cannot work, is of a wrong type, or asks for something and
{indent}        has no effect beside the others; names it, what was given and what is accepted.
{indent}    DataError: Shards or files cannot be read.
"""
    # Line by line the same in the stub, where all of it stands four columns in.
    return f"{about}\n{arguments(own, indent + '    ', WIDTH - 4 + len(indent))}{raises}"


def summary(doc: str) -> str:
    return " ".join(doc.split())


def arguments(own: list[Field], indent: str, width: int = WIDTH) -> str:
    text = ""
    for one in own:
        words = f"{one['name']}: {summary(one['doc'])}"
        text += (
            textwrap.fill(
                words,
                width,
                initial_indent=indent,
                subsequent_indent=indent + "    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            + "\n"
        )
    return text


def reference(groups: list[Field]) -> str:
    text = """# Options

Every option, with its default and what it has a say in. The names are the same everywhere: keywords of
Python's classes and of `Loader`, fields of the Rust structs, keys of a TOML file (`Loader.from_config`,
`--config`), flags of the command (with hyphens). An option that asks for something and has no effect beside
the others is an error, as is a name that is not known.

**Says** is what an option has a say in: *policy*, which samples are kept, with which captions; *reading*,
which samples there are; *pixels*, what images and tokens look like; *order*, in which batches they come;
*runtime*, nothing that a batch shows. The first four are part of a saved state, and an option at its default
has no part in it.

This page is made by `bindings/python/reference.py` of what the code declares.
"""
    order = ["Config", "Source", "Store", "Selection", "Captions", "Images", "Runtime", "World"]
    for group in sorted(groups, key=lambda group: order.index(group["name"])):
        name = "Loader" if group["name"] == "Config" else group["name"]
        text += f"\n## {name}\n\n{summary(group['doc'])}\n"
        text += "\n| option | default | says | |\n| --- | --- | --- | --- |\n"
        for own in group["fields"]:
            value = own["default"]
            shown = (
                ""
                if value is None or own["is_group"] or (not value and not isinstance(value, (bool, int)))
                else f"`{value}`"
            )
            doc = re.sub(r" Default: .*$", "", summary(own["doc"])) if shown else summary(own["doc"])
            escaped = doc.replace("|", "\\|")
            text += f"| `{own['name']}` | {shown} | {own['class']} | {escaped} |\n"
    return text


if __name__ == "__main__":
    sys.exit(main())
