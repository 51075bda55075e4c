#!/usr/bin/env python3
"""Lists public functions and methods without an example, from what `cargo doc` made of the crate.

    cargo doc --no-deps -p tophash --all-features && .ci/examples.py target/doc/tophash

Methods of traits and those that come through `Deref` are not counted. Exit code 1 if there are any.
"""

import pathlib
import re
import sys

EXAMPLE = "rust-example-rendered"


def methods(page):
    """Name and text of each method that the type itself has."""
    begin = page.find('id="implementations"')
    if begin < 0:
        return
    ends = [page.find(end, begin) for end in ('id="deref-methods', 'id="trait-implementations"')]
    own = page[begin : min((end for end in ends if end > 0), default=None)]
    yield from re.findall(r'<section id="method\.(\w+)" class="method">(.*?)(?=<section id="method\.|\Z)', own, re.S)


calls, without = 0, []
root = pathlib.Path(sys.argv[1])
for path in sorted(root.rglob("*.html")):
    page = path.read_text()
    if 'http-equiv="refresh"' in page:
        continue  # the private module that a public name comes from
    name = path.name.removesuffix(".html").partition(".")[2]
    module = "::".join(path.relative_to(root).parts[:-1])
    found = [("", page)] if path.name.startswith("fn.") else [("::" + method, text) for method, text in methods(page)]
    calls += len(found)
    without += [f"{module}::{name}{method}".removeprefix("::") for method, text in found if EXAMPLE not in text]

if not calls:
    sys.exit(f"{root} documents no call: is it what cargo doc made?")
for call in without:
    print(f"no example: {call}")
print(f"{calls - len(without)} of {calls} public calls have an example")
sys.exit(bool(without))
