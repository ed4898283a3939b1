"""Where a program can be broken at random: small edits that leave Python and Lua readable, but wrong."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_PYTHON_OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
}
_SAID = re.compile(rb"(self\._?)?log\b|.*\bconsole\.print")
"""What is only said: to leave it out breaks no promise."""

_LUA_EDITS = (
    (r"==", "~="),
    (r"~=", "=="),
    (r"<=", "<"),
    (r">=", ">"),
    (r"<(?!=)", "<="),
    (r"(?<![-<])>(?!=)", ">="),
    (r"\band\b", "or"),
    (r"\bor\b", "and"),
    (r"\bnot ", ""),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"(?<![\w.'])\d+(?![\w.'])", None),
    (r"^ *(?:redis\.call|count|enqueue|requeue|retry|close|pass_turn|revive|note_latest)\(.*\)$", ""),
    (r"(?<=if ).+?(?= then\b)", "not ({})"),
)
_LUA_COMMENT = re.compile(r"--.*$", re.MULTILINE)


@dataclass(frozen=True)
class Site:
    """One edit of a file, by its place in the bytes of the text."""

    start: int
    end: int
    after: bytes

    def applied(self, source: bytes) -> bytes:
        """The source with the edit in it."""
        return source[: self.start] + self.after + source[self.end :]

    def described(self, source: bytes) -> str:
        """The line's number, what stood there, and what stands there now."""
        line = source[: self.start].count(b"\n") + 1
        before = " ".join(source[self.start : self.end].decode().split())
        return f"line {line}: {before[:60]} → {self.after.decode()[:60] or '(nothing)'}"


def python_sites(source: bytes) -> Iterator[Site]:
    """Comparisons, connectives, conditions, numbers, results, and statements that can be left out."""
    starts = [0, *(match.end() for match in re.finditer(b"\n", source))]

    def place(node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def between(left: ast.expr, operator: ast.AST, right: ast.expr) -> Iterator[Site]:
        before, after = _PYTHON_OPERATORS.get(type(operator), ("", ""))
        start, end = place(left)[1], place(right)[0]
        found = re.search(rb"\s+".join(map(re.escape, before.encode().split())), source[start:end]) if before else None
        if found:
            yield Site(start + found.start(), start + found.end(), after.encode())

    for node in _code(ast.parse(source)):
        match node:
            case ast.Compare(left, [operator], [right]) | ast.BinOp(left, operator, right):
                yield from between(left, operator, right)
            case ast.BoolOp(operator, [left, right, *_]):
                yield from between(left, operator, right)
            case ast.UnaryOp(ast.Not(), operand):
                yield Site(place(node)[0], place(operand)[0], b"")
            case ast.Constant(bool(value)):
                yield Site(*place(node), str(not value).encode())
            case ast.Constant(int(number)):
                yield Site(*place(node), str(number + 1).encode())
            case ast.If(test) | ast.IfExp(test) | ast.While(test):
                start, end = place(test)
                yield Site(start, end, b"not (" + source[start:end] + b")")
            case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
                yield Site(*place(value), b"None")
            case ast.Expr(ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign():
                start, end = place(node)
                if not _SAID.match(source[start:end]):
                    yield Site(start, end, b"pass")


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: no annotations, no docstrings, nothing for the type checker alone."""
    for child in ast.iter_child_nodes(tree):
        match child:
            case ast.arguments():
                for default in filter(None, child.defaults + child.kw_defaults):
                    yield from ast.walk(default)
            case ast.AnnAssign(value=value):
                if value:
                    yield from ast.walk(value)
            case ast.Expr(ast.Constant()):
                pass
            case ast.If(ast.Name("TYPE_CHECKING")):
                pass
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _code(child.args)
                for part in child.body:
                    if not isinstance(part, ast.Expr) or not isinstance(part.value, ast.Constant):
                        yield part
                        yield from _code(part)
            case _:
                yield child
                yield from _code(child)


def lua_sites(source: bytes) -> Iterator[Site]:
    """The same for a script, by its text: comments are passed over."""
    text = source.decode()
    comments = [match.span() for match in _LUA_COMMENT.finditer(text)]
    for pattern, after in _LUA_EDITS:
        for found in re.finditer(pattern, text, re.MULTILINE):
            if any(start <= found.start() < end for start, end in comments):
                continue
            new = str(int(found[0]) + 1) if after is None else after.format(found[0])
            start = len(text[: found.start()].encode())
            yield Site(start, start + len(found[0].encode()), new.encode())
