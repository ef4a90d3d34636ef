"""Break one line at a time and count how often the tests notice: `make mutants`.

Mutants are drawn with a seed from the packages whose silent faults cost most. Each is applied to a copy of the source,
and the fast tests of its package run on that copy. A mutant is killed when a test fails or takes far too long.

    python -m tests.mutants --count 120 --seed 0 --json mutants.json
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
TESTS = {
    "training": ["training"],
    "prediction": ["prediction"],
    "sampling": ["sampling", "training"],
    "preprocessing": [
        *("preprocessing", "sampling", "prediction/test_predictor.py"),
        *("training/test_reads.py", "training/test_points.py", "training/test_loop.py"),
    ],
    "losses": ["losses"],
    "evaluation": ["evaluation"],
}
"""Package → the folders of tests that run on its mutants."""
SECONDS = 180
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}


@dataclass
class Mutant:
    """One changed line and what became of it."""

    package: str
    file: str
    line: int
    kind: str
    before: str
    after: str
    killed: bool | None = None
    seconds: float = 0.0


def mutants_of(path: Path) -> Iterator[tuple[Mutant, str]]:
    """Every mutant of a file, with the changed source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(SOURCE / "farvox").parts[0]
    nodes = list(_behaviour(tree))
    for index, node in enumerate(nodes):
        for kind, change in _changes(node):
            twin = copy.deepcopy(tree)
            target = list(_behaviour(twin))[index]
            before = ast.unparse(target)
            change(target)
            after = ast.unparse(target)
            name = str(path.relative_to(SOURCE))
            yield Mutant(package, name, node.lineno, kind, before[:100], after[:100]), ast.unparse(twin)


def _behaviour(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Nodes that decide what a program does: no messages of errors, annotations, docstrings or texts."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(
                child, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)
            ):
                continue
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id.endswith("Error"):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, (ast.expr, ast.stmt)):
                yield child
            yield from _behaviour(child)


def _swap_comparison(node: ast.Compare) -> None:
    node.ops[0] = COMPARISONS[type(node.ops[0])]()


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield "comparison", _swap_comparison
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield "operator", lambda n: setattr(n, "op", OPERATORS[type(n.op)]())
    elif isinstance(node, ast.BoolOp):
        yield "and/or", lambda n: setattr(n, "op", ast.And() if isinstance(n.op, ast.Or) else ast.Or())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "number", lambda n: setattr(n, "value", n.value + 1 if isinstance(n.value, int) else n.value * 2 + 0.25)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "flag", lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call left out", lambda n: setattr(n, "value", ast.Constant(None))


def draw(count: int, seed: int, packages: list[str]) -> list[tuple[Mutant, str]]:
    """As many mutants of each package, without replacement, the same for the same seed and source."""
    rng = random.Random(seed)
    drawn = []
    for package in packages:
        files = sorted((SOURCE / "farvox" / package).rglob("*.py"))
        every = [(path, number) for path in files for number, _ in enumerate(_spots(path))]
        for path, number in rng.sample(every, min(len(every), count // len(packages))):
            drawn.append(next(pair for n, pair in enumerate(mutants_of(path)) if n == number))
    return drawn


def _spots(path: Path) -> list[str]:
    return [kind for node in _behaviour(ast.parse(path.read_text(encoding="utf-8"))) for kind, _ in _changes(node)]


def judge(mutant: Mutant, text: str) -> Mutant:
    """Run the tests of its package on a copy of the source with the mutant in it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "src"
        shutil.copytree(SOURCE, copied)  # with its caches of compiled kernels
        (copied / mutant.file).write_text(text, encoding="utf-8")
        tests = [f"tests/{name}" for name in TESTS[mutant.package]]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": str(copied), "OMP_NUM_THREADS": "1"}
        try:
            code = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = 1
    mutant.killed, mutant.seconds = code != 0, round(time.monotonic() - started, 1)
    return mutant


def main() -> None:
    """Draw, judge, print a table and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--packages", nargs="+", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    drawn = draw(options.count, options.seed, options.packages)
    done: list[Mutant] = []
    with ThreadPoolExecutor(options.workers) as pool:
        for mutant in pool.map(lambda pair: judge(*pair), drawn):
            done.append(mutant)
            if not mutant.killed:
                print(
                    f"survived: {mutant.file}:{mutant.line} {mutant.kind}: {mutant.before}  →  {mutant.after}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps([asdict(mutant) for mutant in done], indent=1) + "\n", encoding="utf-8")
    tried, killed = Counter(m.package for m in done), Counter(m.package for m in done if m.killed)
    for package in options.packages:
        print(f"{package:14} {killed[package]:4} of {tried[package]:4} killed")
    share = sum(killed.values()) / max(1, len(done))
    print(f"{'all':14} {sum(killed.values()):4} of {len(done):4} killed: {share:.0%}")
    sys.exit(0 if share >= 0.85 else 1)


if __name__ == "__main__":
    main()
