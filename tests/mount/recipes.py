#!/usr/bin/env python3
"""recipes.py DIRECTORY: the examples that readers copy, one a file of DIRECTORY, and what is there twice.

The blocks of man/agentpoolfs.7 are named by their headings, those of README.md (shell alone) by README and a number.
A block of the page is read from its source, where every character has one way to be written, and must then stand as it
is, at the left margin, in what mandoc and groff make of the page: what runs is what people copy."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

top = Path(__file__).resolve().parents[2]
ESCAPES = {r"\-": "-", r"\e": "\\", r"\(aq": "'", r"\(ga": "`", r"\(ha": "^", r"\(ti": "~", r"\&": ""}
FORMATTERS = {
    "mandoc": ["mandoc", "-T", "utf8"],
    "groff": ["groff", "-t", "-man", "-Tutf8", "-P-cbou", "-rLL=80n"],
}


def unescape(line):
    text = re.sub(r"\\(?:\(..|.)", "", line)
    bad = re.search(r"[-'`^~\\]", text)
    unknown = [e for e in re.findall(r"\\(?:\(..|.)", line) if e not in ESCAPES]
    if bad or unknown or line.startswith("."):
        sys.exit(f"not as a block is written: {line}")
    return re.sub(r"\\(?:\(..|.)", lambda found: ESCAPES[found[0]], line)


def blocks_of_page(page):
    """Pairs of a heading and its block. A heading has one block at most."""
    heading, lines, result = None, None, {}
    for line in page.read_text().splitlines():
        if line.startswith(".SS "):
            heading = line[4:]
        elif line == ".EX":
            lines = []
        elif line == ".EE":
            if heading is None or heading in result:
                sys.exit(f"a block without a heading of its own, after {heading}")
            result[heading] = "\n".join(lines) + "\n"
            lines = None
        elif lines is not None:
            lines.append(unescape(line))
    return result


def blocks_of_readme(readme):
    """Indented blocks that are commands: those with a comment, a variable or a redirection in them."""
    paragraphs = re.findall(r"(?:(?<=\n\n)|\A)((?: {4,}.*\n)+)", readme.read_text())
    return [textwrap.dedent(p) for p in paragraphs if re.search(r"^ +\w.*[<>]", p, re.M)]


def rendered(formatter, page):
    done = subprocess.run([*FORMATTERS[formatter], str(page)], check=True, capture_output=True, text=True)
    return re.sub(r".\x08", "", done.stdout)


def main():
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True)
    page = top / "man" / "agentpoolfs.7"
    blocks = blocks_of_page(page)
    for formatter in FORMATTERS:
        text = rendered(formatter, page)
        for heading, block in blocks.items():
            if f"\n\n{block}\n" not in text:
                sys.exit(f"{heading}: {formatter} shows something else:\n{block}")
        for line in text.splitlines():
            if len(line) > 80:
                sys.exit(f"{formatter} shows more than 80 columns: {line}")
    for n, block in enumerate(blocks_of_readme(top / "README.md"), 1):
        blocks[f"README {n}"] = block
    for heading, block in blocks.items():
        (directory / heading).write_text(block)


main()
