"""Characters and spellings: Go's idea of space, Go's quoting, and what a misspelt word may have meant."""

import json
import posixpath
from collections.abc import Iterable

# What Go's unicode.IsSpace accepts; Python's str.isspace takes four control characters more.
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_NEAR = 3
_LONGEST = 64


def quoted(text: str) -> str:
    """Return text as Go's %q shows it."""
    out = json.dumps(text, ensure_ascii=False)
    for escape, short in (("\\u0007", "\\a"), ("\\u000b", "\\v")):
        out = out.replace(escape, short)
    for code in range(0x20):
        out = out.replace(f"\\u{code:04x}", f"\\x{code:02x}")
    return out.replace("\x7f", "\\x7f")


def quoted_list(words: Iterable[str]) -> str:
    """Return words as Go's %q shows a slice."""
    return "[" + " ".join(quoted(word) for word in words) + "]"


def clean(path: str) -> str:
    """Return path as Go's filepath.Clean does: like normpath, but two leading slashes are one."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def distance(one: str, other: str) -> int:
    """Return the number of single-character edits between two words."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def nearest(word: str, options: Iterable[str], *, same_case: bool = True) -> str:
    """Return the option that word may have meant, empty where none is near or word is one of them."""
    if len(word) > _LONGEST:
        return ""
    shown = word
    if not same_case:
        word, options = word.lower(), [option.lower() for option in options]
    best, least = "", _NEAR
    for option in sorted(options):
        if option == word:
            return ""
        far = distance(word, option)
        if far < least:
            best, least = option, far
    if not same_case and shown == shown.upper():
        return best.upper()
    return best


def suggestion(word: str, options: Iterable[str], *, same_case: bool = True) -> str:
    """Return ` (did you mean x?)`, empty where nothing is near."""
    found = nearest(word, options, same_case=same_case)
    return f" (did you mean {found}?)" if found else ""
