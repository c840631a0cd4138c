"""A WHERE expression taken apart: checked, and split into the rules that its top-level ANDs join.

DuckDB's own parser does the work (`json_serialize_sql` gives the syntax tree as JSON, and
`json_deserialize_sql` writes a tree back as SQL), so what is checked is exactly what will run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curate.base.errors import ConfigError
from curate.base.settings import nearest
from curate.store.finite import FINITE

if TYPE_CHECKING:
    import duckdb

Node = dict[str, Any]
"""A node of DuckDB's syntax tree."""
# Classes of nodes that compute with the row alone.
_ALLOWED = frozenset(
    {"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "FUNCTION", "OPERATOR", "CASE"}
    | {"CAST", "TYPE", "BETWEEN", "COLLATE"}
)

# Several rows of one; a wait for each; as much memory as a number says, past DuckDB's limit.
_ODD = {"unnest", "unlist", "pg_sleep", "range", "generate_series", "repeat", "lpad", "rpad"}
_DEEPEST = 200  # levels of the tree, two or three each of the expression; Python walks it

# Where the sides of a comparison stand in its node.
_COMPARED = {"COMPARISON": ("left", "right"), "BETWEEN": ("input", "lower", "upper")}


@dataclass(frozen=True)
class Rule:
    """One conjunct: `text` as people write it, `columns` that it reads.

    Functions over the whole dataset (see curate.selection.rule_functions) still stand in the text.
    """

    text: str
    columns: tuple[str, ...]


def split_rules(
    connection: duckdb.DuckDBPyConnection, where: str, columns: Sequence[str]
) -> list[Rule]:
    """The rules of `where`, in order.

    Args:
        columns: names that a rule may read.

    Raises:
        ConfigError: not an expression, not valid SQL, an unknown column, or something that is more
            than a rule about one row: a subquery, a statement, a random or file function.
    """
    expression = parse(connection, where)
    volatile = _volatile_functions(connection)
    rules = []
    for node in conjuncts(expression):
        read = [_column_name(part) for part in _walk(node, where, volatile) if _is_column(part)]
        for name in read:
            if name.lower() not in {column.lower() for column in columns}:
                raise ConfigError(f"There is no column {name!r}; {nearest(name, list(columns))}")
        rules.append(Rule(unparse(connection, node), tuple(dict.fromkeys(read))))
    return rules


def parse(connection: duckdb.DuckDBPyConnection, where: str) -> Node:
    """The syntax tree of one expression; ConfigError where it is something else."""
    if not where.strip():
        raise ConfigError('The rule of a selection is empty; write "true" to keep every sample.')
    serialized = _ask(connection, "json_serialize_sql", f"SELECT {where}\n")
    if _depth(serialized) > _DEEPEST:
        raise ConfigError(f"{where[:60]!r}... nests too deeply; write it with fewer brackets.")
    tree = json.loads(serialized)
    if tree.get("error"):
        raise ConfigError(f"{where!r} is not a valid SQL expression: {tree['error_message']}.")
    node = tree["statements"][0]["node"]
    plain = (
        len(tree["statements"]) == 1
        and node["type"] == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not any(
            node.get(part)
            for part in ("where_clause", "group_expressions", "having", "qualify", "modifiers")
        )
        and not node["select_list"][0].get("alias")
    )
    if not plain:
        raise ConfigError(
            f"{where!r} is a statement or a list; give one expression about a sample, such as "
            f'"clip_similarity >= 0.28 and nsfw < 0.5".'
        )
    expression: Node = node["select_list"][0]
    return expression


def conjuncts(node: Node) -> Iterator[Node]:
    """What the top-level ANDs of a syntax tree join, in order."""
    if node["type"] == "CONJUNCTION_AND":
        for child in node["children"]:
            yield from conjuncts(child)
    else:
        yield node


def _walk(node: Any, where: str, volatile: frozenset[str]) -> Iterator[Node]:
    """Every expression node below and at `node`; ConfigError for one that is not allowed."""
    if isinstance(node, list):
        for child in node:
            yield from _walk(child, where, volatile)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind is not None:
        if kind not in _ALLOWED:
            raise ConfigError(
                f"{where!r} holds a {kind.lower().replace('_', ' ')}; a rule may only compute "
                f"with the columns of one sample."
            )
        if kind == "FUNCTION" and node["function_name"].lower() in volatile:
            raise ConfigError(
                f"{node['function_name']}() gives another answer on every run or reads outside "
                f"the dataset, so a selection cannot rest on it."
            )
        if kind == "FUNCTION" and node["function_name"].lower() in _ODD:
            raise ConfigError(f"{node['function_name']}() is no rule about one sample.")
        yield node
    for child in node.values():
        yield from _walk(child, where, volatile)


def _is_column(node: Node) -> bool:
    return bool(node["class"] == "COLUMN_REF")


def _column_name(node: Node) -> str:
    names = node["column_names"]
    return str(names[-1] if len(names) == 1 else ".".join(names))


def _volatile_functions(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    rows = connection.execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() "
        "WHERE stability = 'VOLATILE' OR function_name IN ('now', 'today', 'getenv', "
        "'current_setting', 'get_current_timestamp', 'current_date', 'read_text', 'read_blob')"
    ).fetchall()
    return frozenset(name for (name,) in rows)


def unparse(connection: duckdb.DuckDBPyConnection, node: Node) -> str:
    """A syntax tree as SQL."""
    tree = json.loads(_ask(connection, "json_serialize_sql", "SELECT 1"))
    tree["statements"][0]["node"]["select_list"] = [node]
    answer = _ask(connection, "json_deserialize_sql", json.dumps(tree))
    text = answer.removeprefix("SELECT ").strip()
    return _without_outer_brackets(text)


def guarded(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """A rule whose comparisons take a computed NaN or infinity, as of 0 / 0, for unknown.

    `connection` knows the function of curate.store.finite; columns are finite already.
    """

    def finite(node: Node) -> Node:
        if node["class"] in ("COLUMN_REF", "CONSTANT"):
            return node
        return parse(connection, f"{FINITE}({unparse(connection, node)})")

    def visit(node: Any) -> Any:
        if isinstance(node, list):
            return [visit(child) for child in node]
        if not isinstance(node, dict):
            return node
        sides = _COMPARED.get(str(node.get("class")), ())
        visited = {name: visit(child) for name, child in node.items()}
        return visited | {side: finite(visited[side]) for side in sides}

    return unparse(connection, visit(parse(connection, sql)))


def _depth(serialized: str) -> int:
    """How deep JSON is nested at most; brackets in texts count as well, which does no harm."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[{}\]]", serialized):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _ask(connection: duckdb.DuckDBPyConnection, function: str, argument: str) -> str:
    return str(connection.execute(f"SELECT {function}(?)", [argument]).fetchall()[0][0])


def _without_outer_brackets(text: str) -> str:
    """`(a > 1)` -> `a > 1`, but not `(a) > (b)`."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth, quote = 0, ""
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter == "(") - (letter == ")")
            if depth == 0 and index < len(text) - 1:
                return text
    return text[1:-1]
