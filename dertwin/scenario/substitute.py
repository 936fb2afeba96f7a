"""Parameters in a scenario: `${name}`, or arithmetic on names and numbers, in any text of it."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from dertwin.config_errors import show, use

Value: TypeAlias = float | int | str | bool
Place: TypeAlias = tuple[str | int, ...]

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def substituted(
    content: Any, parameters: Mapping[str, Value], problems: list[tuple[Place, str]], place: Place = ()
) -> Any:
    """Return a document with its parameters put in; adds what is wrong, with its place, to `problems`.

    A text that is nothing but one reference becomes the value itself, so that numbers stay numbers.
    """
    if isinstance(content, dict):
        named = {
            key: substituted(key, parameters, problems, (*place, key)) if isinstance(key, str) else key
            for key in content
        }
        return {
            named[key]: substituted(value, parameters, problems, (*place, key))
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [
            substituted(value, parameters, problems, (*place, index)) for index, value in enumerate(content)
        ]
    if not isinstance(content, str) or "${" not in content:
        return content
    try:
        if whole := _REFERENCE.fullmatch(content):
            return evaluated(whole[1], parameters)
        return _REFERENCE.sub(lambda match: _as_text(evaluated(match[1], parameters)), content)
    except ValueError as error:
        problems.append((place, str(error)))
        return content


def evaluated(text: str, parameters: Mapping[str, Value]) -> Value:
    """Return the value of an expression: a name, a number, or + - * / of these. Raises ValueError."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, parameters)
    except (SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{show(f'${{{text}}}')} is not allowed; use a parameter, or + - * / of parameters and numbers"
        ) from error


def _value(node: ast.expr, parameters: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            if name not in parameters:
                known = use(parameters, name) if parameters else "there are none"
                raise ValueError(f'"{name}" is no parameter; {known}')
            return parameters[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, parameters)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_number(left, parameters), _number(right, parameters))
    raise TypeError(node)


def _number(node: ast.expr, parameters: Mapping[str, Value]) -> float:
    value = _value(node, parameters)
    if isinstance(value, str):  # a text times a large number would be a very large text
        raise TypeError(value)
    return value


def _as_text(value: Value) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
