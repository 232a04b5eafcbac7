"""Filters of the build cache, in containerd's language: `type==regular,shared` - terms that all hold, lists of which one does."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError

Json = dict[str, Any]
Passes = Callable[[Json], bool]
_TERM = re.compile(
    r"""([a-zA-Z][\w.-]*) (?: (==|!=|~=|=) (?: "((?:[^"\\]|\\.)*)" | '([^']*)' | ([^,]*) ) )? (?: ,|$ )""", re.VERBOSE
)
HISTORY = {"ref": "ref", "status": "status", "repository": "repository"}
"""What records of builds have."""
_TEXTS = {"id": "ID", "type": "Type", "description": "Description", "parent": "Parents", "parents": "Parents"}
_FLAGS: dict[str, Callable[[Json], bool]] = {
    "inuse": lambda row: bool(row["InUse"]), "shared": lambda row: bool(row["Shared"]),
    "private": lambda row: not row["Shared"], "mutable": lambda row: row["Type"] in ("exec.cachemount", "source.local"),
    "immutable": lambda row: row["Type"] not in ("exec.cachemount", "source.local"),
}  # fmt: skip
_TRUE, _FALSE = ("true", "1"), ("false", "0")


class _Term(NamedTuple):
    field: str
    operator: str
    value: str

    def holds(self, row: Json, fields: Mapping[str, str]) -> bool:
        if self.field not in fields:
            wanted = self.value.lower() not in _FALSE
            return (_FLAGS[self.field](row) == wanted) != (self.operator == "!=")
        found = row[fields[self.field]]
        texts = [str(one) for one in found or []] if isinstance(found, list | None) else [str(found)]
        if not self.operator:
            return any(texts)
        if self.operator == "~=":
            return any(re.search(self.value, text) for text in texts)
        return (self.value in texts) != (self.operator == "!=")


def passes(filters: Sequence[str], fields: Mapping[str, str] = _TEXTS) -> Passes:
    """Return what tells whether a row passes one of the filters; without any all do.

    Args:
        filters: in containerd's language.
        fields: keys of the rows by the names that filters use; the cache's rows have flags besides.

    Raises:
        InvalidInputError: a filter is malformed, or names what rows have not.
    """
    alternatives = [_terms(text, fields) for text in filters if text]
    if not alternatives:
        return lambda row: True
    return lambda row: any(all(term.holds(row, fields) for term in terms) for terms in alternatives)


def _terms(text: str, fields: Mapping[str, str] = _TEXTS) -> list[_Term]:
    terms: list[_Term] = []
    at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None or match.end() == at:
            raise InvalidInputError(f"invalid filter {text!r}: wants terms such as type==regular or shared")
        at = match.end()
        field, operator = match[1], match[2] or ""
        quoted, single, bare = match[3], match[4], match[5]
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else single if single is not None else bare or ""
        terms.append(_checked(_Term(field, "==" if operator == "=" else operator, value), fields))
    return terms


def _checked(term: _Term, fields: Mapping[str, str]) -> _Term:
    flags = _FLAGS if fields is _TEXTS else {}
    if term.field not in flags and term.field not in fields:
        raise InvalidInputError(f"unknown filter {term.field!r}: use {', '.join([*fields, *flags])}")
    if term.field in flags and term.value and term.value.lower() not in (*_TRUE, *_FALSE):
        raise InvalidInputError(f"invalid filter {term.field}={term.value}: it is true or false")
    if term.operator == "~=":
        try:
            re.compile(term.value)
        except re.error as error:
            raise InvalidInputError(f"invalid filter {term.field}~={term.value}: {error}") from None
    return term


def of_words(filters: dict[str, list[str]]) -> str:
    """Return the filter that words of the Engine API mean; all of them must hold.

    Raises:
        InvalidInputError: a word is unknown, or has more than one value.
    """
    terms = []
    for name, values in filters.items():
        if name not in (*_FLAGS, *_TEXTS):
            raise InvalidInputError(f"invalid filter '{name}'")
        if len(values) > 1:
            raise InvalidInputError(f"invalid filter '{name}': filters expect only one value")
        if not values or not values[0]:
            terms.append(name)
        elif name == "id":
            pattern = re.escape(values[0]).replace("\\", "\\\\")
            terms.append(f'id~="^{pattern}"')
        else:
            quoted = values[0].replace("\\", "\\\\").replace('"', '\\"')
            terms.append(f'{name}=="{quoted}"')
    return ",".join(terms)
