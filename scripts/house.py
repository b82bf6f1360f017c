"""What no linter knows of this house: words, sizes and signs; each breach as ``file:line: what``.

Words: names that were given up, phrases that error texts, help and docstrings do without. Sizes:
files, functions, constructors. Signs: what the opening of a module or the README names must exist.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 350, 55, 8
PACKAGES, TESTS = ("distsgd/", "workers/"), "tests/"
MARK = "house: old name"  # On a line that must say one.

# A part of a name, and what it is called now.
NAMES = {
    "aside": "staging",
    "blueprint": "RunSpec",
    "chaos": "fault injection",
    "crew": "pool",
    "deal": "sampler",
    "dealing": "sampling",
    "fallback": "rollback",
    "fleet": "WorkerActors",
    "hot_and_cold": "coordinate search",
    "hurt": "inject",
    "lateness": "stragglers",
    "order_key": "shuffle_key",
    "outran": "backup",
    "pace": "LossMonitor",
    "roster": "Members",
    "shared_sum": "SlicedReduce",
    "suspects": "CrashLoopGuard",
    "wish": "DesiredWorkers",
}
# A phrase, and what to write instead.
PHRASES = {
    "who": (r"whoever|somebody|someone", "the one who does it"),
    "on": (r"go(?:es|ing)?\s+on", "continue"),
    "there": (r"(?:is|are)\s+there", "exist, or plain word order"),
    "beside": (r"beside", "next to, with, besides"),
    "hurt": (r"hurts?", "cost, damage"),
}
_OLD = re.compile(r"(?<![a-z])(" + "|".join(NAMES) + r")(?![a-z])")
_EACH = "|".join(f"(?P<{name}>{pattern})" for name, (pattern, _) in PHRASES.items())
_PHRASE = re.compile(rf"\b(?:{_EACH})\b", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIGN = re.compile(r"(?<!`)`([A-Za-z_][\w./-]*)`(?!`)")
_PATH = re.compile(r"`((?:distsgd|workers|scripts|tests)/[\w./]+|distsgd(?:\.\w+)+)")


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file, read once."""

    path: str
    text: str
    tree: ast.Module

    def names(self) -> Iterator[tuple[int, str]]:
        """Every name in its code, with its line; that of the file comes first."""
        yield 1, self.path.removesuffix(".py").rpartition("/")[2]
        for node in ast.walk(self.tree):
            for field in ("id", "attr", "name", "asname", "arg", "module"):
                if isinstance(name := getattr(node, field, None), str):
                    yield getattr(node, "lineno", 1), name


def words(source: Source) -> Iterator[tuple[int, str]]:
    """Names that were given up, and phrases in texts."""
    lines = source.text.splitlines() or [""]
    for line, name in dict.fromkeys(source.names()):
        old = _OLD.search(_HUMP.sub("_", name).lower())
        if old and MARK not in lines[line - 1]:
            yield line, f"{name}: what was {old[1]} is {NAMES[old[1]]}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for found in _PHRASE.finditer(node.value):
                line = node.lineno + node.value.count("\n", 0, found.start())
                phrase, better = " ".join(found[0].split()), PHRASES[found.lastgroup or ""][1]
                yield line, f'"{phrase}" in a text; write: {better}'


def sizes(source: Source) -> Iterator[tuple[int, str]]:
    """Files, functions and lists of parameters that have grown too long."""
    length = source.text.count("\n")
    if length > MAX_FILE:
        yield 1, f"{length} lines; at most {MAX_FILE}"
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION:
            yield node.lineno, f"{node.name} has {length} lines; at most {MAX_FUNCTION}"
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = sum(one.arg not in {"self", "cls"} for one in every)
        # Parametrised tests take many, as ruff allows them.
        is_held = node.name == "__init__" or not source.path.startswith(TESTS)
        if is_held and count > MAX_PARAMETERS:
            yield node.lineno, f"{node.name} has {count} parameters; at most {MAX_PARAMETERS}"


def signs(source: Source, known: frozenset[str], root: Path) -> Iterator[tuple[int, str]]:
    """What the opening of a module names between single backticks and does not exist."""
    opening = ast.get_docstring(source.tree, clean=False) or ""
    places = (root, root / "distsgd", (root / source.path).parent)
    for found in _SIGN.finditer(opening):
        is_path = "/" in found[1] or found[1].endswith(".py")
        exists = any((place / found[1]).exists() for place in places)
        if not exists and (is_path or not known.issuperset(found[1].split("."))):
            yield opening.count("\n", 0, found.start()) + 1, f"`{found[1]}` does not exist"


def paths(text: str, known: frozenset[str], root: Path) -> Iterator[tuple[int, str]]:
    """Paths and dotted names of the project that a text names and that do not exist."""
    for found in _PATH.finditer(text):
        is_known = "/" not in found[1] and known.issuperset(found[1].split("."))
        if not is_known and not (root / found[1]).exists():
            yield text.count("\n", 0, found.start()) + 1, f"`{found[1]}` does not exist"


def breaches(root: Path) -> Iterator[str]:
    """All breaches in a project, as ``file:line: what``."""
    sources = []
    for room in (*PACKAGES, "scripts/", TESTS):
        for path in sorted((root / room).rglob("*.py")):
            text = path.read_text("utf-8")
            sources.append(Source(path.relative_to(root).as_posix(), text, ast.parse(text)))
    ours = [source for source in sources if source.path.startswith(PACKAGES)]
    names = " ".join(f"{source.path} {name}" for source in ours for _, name in source.names())
    known = frozenset(re.findall(r"\w+", names))
    for source in sources:
        found = list(sizes(source))
        found += [] if source.path.startswith(TESTS) else words(source)
        found += signs(source, known, root) if source in ours else []
        yield from (f"{source.path}:{line}: {what}" for line, what in sorted(found))
    if (readme := root / "README.md").exists():
        found = list(paths(readme.read_text("utf-8"), known, root))
        yield from (f"README.md:{line}: {what}" for line, what in found)


if __name__ == "__main__":
    listed = list(breaches(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    print("\n".join(listed), end="\n" if listed else "")
    sys.exit(bool(listed))
