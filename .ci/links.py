#!/usr/bin/env python3
"""Follows the relative links of all Markdown files under version control: the file is there, and so is the heading.

Headings get the names that code hosts give them. Exit code 1 if a link leads nowhere.
"""

import pathlib
import re
import subprocess
import sys

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)


def headings(path):
    """The anchors of a file's headings."""
    seen, names = {}, set()
    for title in re.findall(r"^#+ +(.*?)[ #]*$", FENCE.sub("", path.read_text()), re.M):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = seen.get(name, 0)
        seen[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names


root = pathlib.Path(__file__).resolve().parent.parent
listed = subprocess.run(["git", "ls-files", "*.md"], cwd=root, check=True, capture_output=True, text=True)
links, broken = 0, []
for name in listed.stdout.split():
    source = root / name
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", source.read_text()))):
        if re.match(r"[a-z]+:", link):
            continue
        links += 1
        file, _, heading = link.partition("#")
        target = source.parent / file if file else source
        if not target.exists():
            broken.append(f"{name}: {link}: there is no such file")
        elif heading and heading not in headings(target):
            broken.append(f"{name}: {link}: there is no such heading")
for line in broken:
    print(line)
print(f"{links - len(broken)} of {links} relative links lead somewhere")
sys.exit(bool(broken))
