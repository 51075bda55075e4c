#!/usr/bin/env python3
"""Lists circles among the files of the library: files that name each other, directly or through others.

    .ci/circles.py

Only `use` declarations count, without those of tests, and not between the head of a folder (mod.rs, lib.rs) and the files in it:
a type stands there whose methods are in several files. Exit code 1 if there is a circle.
"""

import pathlib
import re
import sys

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "src"


def module_of(path):
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    return tuple(parts[:-1] if parts[-1] in ("mod", "lib") else parts)


def leaves(tree):
    """The paths of a `use`, its braces written out."""
    begin = tree.find("{")
    if begin < 0:
        return [tree]
    prefix, inside, depth, piece, found = tree[:begin], tree[begin + 1 : tree.rindex("}")], 0, "", []
    for letter in inside + ",":
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            found += [prefix + leaf for leaf in leaves(piece.strip()) if piece.strip()]
            piece = ""
        else:
            piece += letter
    return found


def declared(text):
    """The paths that a file's declarations name, and whether the file passes the name on."""
    text = re.split(r"^#\[cfg\((?:all\()?test\b.*\n(?:#.*\n)*mod ", text, maxsplit=1, flags=re.M)[0]
    for public, tree in re.findall(r"^\s*(pub(?:\([^)]*\))? )?use ([^;]+);", text, re.M):
        for leaf in leaves(" ".join(tree.split())):
            yield bool(public), leaf.split(" as ")[0].split("::")


def resolved(names, module, modules):
    """The module that a path leads to, and the name in it; `None` if it is none of this library's."""
    if names[0] == "crate":
        path = names[1:]
    elif names[0] in ("self", "super"):
        path = list(module)
        while names and names[0] in ("self", "super"):
            path = path[:-1] if names[0] == "super" else path
            names = names[1:]
        path += names
    elif module + (names[0],) in modules:
        path = list(module) + names
    else:
        return None
    deep = max(n for n in range(len(path) + 1) if tuple(path[:n]) in modules)
    return tuple(path[:deep]), path[deep] if deep < len(path) else None


def named(module, declarations, passed_on, modules):
    """The modules whose names a file uses. A name that a module passes on is that of the module from which it has it."""
    for public, names in declarations[module]:
        target = resolved(names, module, modules)
        if target is None or public and target[0][: len(module)] == module:
            continue
        while target in passed_on and passed_on[target] != target[0]:
            target = passed_on[target], target[1]
        if target[0] != module:
            yield target[0]


def circles(graph):
    """Strongly connected parts with more than one member (Tarjan's algorithm)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(part)

    for node in graph:
        if node not in index:
            visit(node)
    return found


files = {module_of(path): path for path in SOURCE.rglob("*.rs") if not path.stem.endswith("_tests")}
declarations = {module: list(declared(path.read_text())) for module, path in files.items()}
passed_on = {}
for module, found in declarations.items():
    for target in (resolved(names, module, files) for public, names in found if public):
        if target and target[1]:
            passed_on[module, target[1]] = target[0]
graph = {
    module: {other for other in named(module, declarations, passed_on, files) if module != other[:-1] and other != module[:-1]}
    for module in files
}
edges = sum(map(len, graph.values()))
if not edges:
    sys.exit(f"{SOURCE}: no file names another one: is it the library?")
found = circles(graph)
for part in found:
    print("a circle:", ", ".join(sorted("/".join(module) or "lib" for module in part)))
print(f"{len(files)} files, {edges} times one names another, {len(found)} circles")
sys.exit(bool(found))
