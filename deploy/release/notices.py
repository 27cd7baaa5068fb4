#!/usr/bin/env python3
"""Writes the licences of all that is linked into the released program: notices.py > THIRD-PARTY-NOTICES.txt

The crates are those of the build that is released (no demo, for Linux); of each the texts that lie in its package. The C
code of others is what THIRD-PARTY.md lists; its texts are where that page says. A crate or a part without a text ends it.
"""

import glob
import json
import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TEXTS = ("LICENSE*", "LICENCE*", "COPYING*", "COPYRIGHT*", "NOTICE*", "UNLICENSE*", "license*", "licenses/*")
TARGET = "x86_64-unknown-linux-gnu"


def linked():
    """Name and version of each crate of the normal dependencies."""
    tree = subprocess.check_output(
        ["cargo", "tree", "--locked", "--no-default-features", "--edges", "normal", "--prefix", "none",
         "--format", "{p}", "--target", TARGET, "--package", "postrider"], cwd=ROOT, text=True)
    named = (line.removesuffix(" (*)").split() for line in tree.splitlines() if line)
    return sorted({(words[0], words[1].removeprefix("v")) for words in named})


def packages():
    metadata = subprocess.check_output(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET], cwd=ROOT, text=True)
    return {(one["name"], one["version"]): one for one in json.loads(metadata)["packages"]}


def texts(folder, names):
    found = {path for name in names for path in glob.glob(os.path.join(glob.escape(folder), name)) if os.path.isfile(path)}
    return sorted(found)


def write(title, licence, paths, written={}):
    """A text that was written before is only named again."""
    print("=" * 100, f"{title}\n{licence}", sep="\n")
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read().strip()
        name, first = os.path.basename(path), written.setdefault(text, title)
        print("-" * 100, name, "", text if first == title else f"The same text as that of {first}.", sep="\n")
    print()


def of_c(known):
    """Rows of THIRD-PARTY.md: what it is, its licence, and its texts."""
    with open(os.path.join(ROOT, "THIRD-PARTY.md")) as page:
        rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in page if line.startswith("| ")]
    for what, version, crate, licence, where, _ in rows[1:]:
        name, crate_version = re.fullmatch(r"`([^ `]+) ([^ `]+)`", crate).groups()
        folder = os.path.dirname(known[(name, crate_version)]["manifest_path"])
        quoted = re.findall(r"`([^`]+)`", where)
        yield f"{what}, {version}", licence, texts(folder, quoted or TEXTS)


def main():
    known, missing, unnamed = packages(), [], []
    print("What of others is linked into postrider, and under which licences.\n")
    for title, licence, paths in of_c(known):
        if not paths:
            missing.append(title)
        write(title, licence, paths)
    for crate in linked():
        one = known[crate]
        if one["source"] is None:
            continue
        paths = texts(os.path.dirname(one["manifest_path"]), TEXTS)
        title = f"{one['name']} {one['version']}, by {', '.join(one['authors']) or 'its authors'}"
        if not paths:
            unnamed.append(f"{title}: {one['license']}, {one['repository']}")
            continue
        write(title, one["license"], paths)
    if unnamed:
        print("=" * 100, "These bring no text of their own; their licences are among those above, or stand at their addresses.", *unnamed, sep="\n")
    if missing:
        sys.exit(f"no text of the licence was found of: {', '.join(missing)}")


if __name__ == "__main__":
    main()
