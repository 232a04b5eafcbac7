# ruff: noqa: ANN001, ANN002, ANN003, ANN202, ANN204, ANN206, RUF012
"""Named tuples that cost no import of `typing`: for what must start in milliseconds."""

__all__ = ["Record"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    from _collections import _tuplegetter

    class Record(tuple):
        """Base of immutable records; fields are the class's annotations, in order, with their defaults."""

        __slots__ = ()
        _fields = ()
        _defaults = {}

        def __init_subclass__(cls) -> None:
            cls._fields = tuple(cls.__annotations__)
            cls._defaults = {name: vars(cls)[name] for name in cls._fields if name in vars(cls)}
            for place, name in enumerate(cls._fields):
                setattr(cls, name, _tuplegetter(place, ""))

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values = cls._all_values(values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _all_values(cls, values, named):
            given = {**cls._defaults, **named}
            try:
                values += tuple([given[name] for name in cls._fields[len(values) :]])
            except KeyError as error:
                raise TypeError(f"{cls.__name__} needs a value for {error}") from None
            if len(values) != len(cls._fields) or not named.keys() <= set(cls._fields):
                raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
            return values

        def __repr__(self) -> str:
            shown = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({shown})"

        def _replace(self, **named):
            return type(self)(**{**dict(zip(self._fields, self, strict=True)), **named})
