"""Reads a pickle as data: opcodes are interpreted here, nothing is imported, nothing is called.

Every class or function that the pickle names becomes an inert `Global`; what it would build becomes a `Stub` that
keeps the arguments. Python's own unpickler is not used.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, cast

from modelmend.errors import ModelRefused

MAX_OPCODES = 2_000_000
_MARK = object()


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that a pickle names; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Stub:
    """What a pickle would have built by calling something: who, with what, and the state set afterwards.

    Attributes:
        made_by: The `Global`, or a `Stub` for a class that the pickle itself carries.
        args: Arguments of the call.
        state: Argument of ``__setstate__`` or of the attribute update.
        items: Key and value pairs set afterwards, for subclasses of dictionaries.
        elements: Elements appended afterwards, for subclasses of lists and sets.
    """

    made_by: Any
    args: Any = ()
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list)
    elements: list[Any] = field(default_factory=list)


@dataclass
class Pickle:
    """The content of one pickle.

    Attributes:
        value: The object, made of plain Python values, `Stub`, `Global` and what ``persistent`` returned.
        names: Every class or function named, in order of first appearance.
        called: Those that the pickle would call.
    """

    value: Any
    names: dict[Global, None]
    called: dict[Global, None]


class Bounded:
    """A stream that never reserves more than it holds, whatever length an opcode claims."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        here = stream.tell()
        self._length = stream.seek(0, io.SEEK_END)
        stream.seek(here)

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes."""
        return self._stream.read(max(0, min(size, self._length - self._stream.tell())))

    def readline(self) -> bytes:
        """One line."""
        return self._stream.readline()

    def tell(self) -> int:
        """Position."""
        return self._stream.tell()


def read_pickle(
    stream: BinaryIO, where: object, persistent: Callable[[Any], Any] | None = None, field_name: str = "pickle"
) -> Pickle:
    """Interpret one pickle from ``stream``, which stands behind its last byte afterwards.

    Args:
        stream: Positioned at the first opcode.
        where: The file, for errors.
        persistent: Turns a persistent id, such as a storage, into a value.
        field_name: Name of the part of the file, for errors.

    Raises:
        ModelRefused: Damaged, too long, or with opcodes that need outside help (extension registry, buffers).
    """
    machine = _Machine(persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], Bounded(stream)))):
            if count > MAX_OPCODES:
                raise ValueError("too many opcodes")
            if opcode.name == "STOP":
                return Pickle(machine.pop(), machine.names, machine.called)
            machine.step(opcode.name, argument)
    except ModelRefused as error:
        error.where, error.field = str(where), error.field or field_name
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, UnicodeError) as error:
        raise ModelRefused(
            f"the pickle is damaged or not one that torch writes: {str(error)[:160]}", where=where, field=field_name
        ) from error
    raise ModelRefused("the pickle is cut short", where=where, field=field_name)


class _Machine:
    """The stack, the memo and one method for each group of opcodes."""

    def __init__(self, persistent: Callable[[Any], Any] | None) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.persistent = persistent
        self.names: dict[Global, None] = {}
        self.called: dict[Global, None] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            method = _METHODS.get(name)
            if method is None:
                raise ValueError(f"opcode {name} is not allowed")
            method(self, argument)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value must be")
        return value

    def to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ValueError("no mark")

    def found(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a class whose name is no text")
        made = Global(module[:200], name[:200])
        self.names.setdefault(made)
        return made

    def call(self, maker: Any, args: Any) -> None:
        if isinstance(maker, Global):
            self.called.setdefault(maker)
        if maker == Global("collections", "OrderedDict") and args in ((), None):
            self.stack.append({})
            return
        self.stack.append(Stub(maker, args))

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def collect(self, make: Callable[[list[Any]], Any]) -> None:
        self.stack.append(make(self.to_mark()))

    def fixed_tuple(self, size: int) -> None:
        values = [self.pop() for _ in range(size)]
        self.stack.append(tuple(reversed(values)))

    def append(self, _: Any) -> None:
        value = self.pop()
        self.extend(self.stack[-1], [value])

    def appends(self, _: Any) -> None:
        values = self.to_mark()
        self.extend(self.stack[-1], values)

    @staticmethod
    def extend(target: Any, values: list[Any]) -> None:
        if isinstance(target, Stub):
            target.elements.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise TypeError("elements for something that is no list")

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Stub):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            for key, value in pairs:
                target[_key(key)] = value
        else:
            raise TypeError("items for something that is no dictionary")

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def global_text(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.found(module, name))

    def global_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.found(module, name))

    def reduce(self, _: Any) -> None:
        args, maker = self.pop(), self.pop()
        self.call(maker, args)

    def new_object(self, _: Any) -> None:
        args, maker = self.pop(), self.pop()
        self.call(maker, args)

    def new_object_keywords(self, _: Any) -> None:
        keywords, args, maker = self.pop(), self.pop(), self.pop()
        self.call(maker, (args, keywords))

    def instance(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.call(self.found(module, name), tuple(self.to_mark()))

    def object(self, _: Any) -> None:
        maker, *args = self.to_mark()
        self.call(maker, tuple(args))

    def build(self, _: Any) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.state = state

    def persist(self, identity: Any) -> None:
        if self.persistent is None:
            raise ValueError("a persistent id outside a torch file")
        self.stack.append(self.persistent(identity))

    def pop_mark(self, _: Any) -> None:
        self.to_mark()

    def pop_one(self, _: Any) -> None:
        del self.stack[-1]


def _key(key: Any) -> Any:
    """Keys are hashed, and the hash of tuples in tuples overflows the C stack or takes forever: flat ones only."""
    if isinstance(key, _PLAIN) or (isinstance(key, tuple) and all(isinstance(k, _PLAIN) for k in key)):
        return key
    return f"<key {id(key)}>"


def _dictionary(values: list[Any]) -> dict[Any, Any]:
    return {_key(k): v for k, v in zip(values[::2], values[1::2], strict=True)}


_PLAIN = (str, int, float, bool, bytes, Global, type(None))
_SET, _FROZENSET = Global("builtins", "set"), Global("builtins", "frozenset")
_VALUES = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
        "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Stub(_SET),
    "MARK": lambda: _MARK,
}
_METHODS: dict[str, Callable[[_Machine, Any], None]] = {
    "MEMOIZE": _Machine.memoize,
    "POP": _Machine.pop_one,
    "POP_MARK": _Machine.pop_mark,
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "LIST": lambda m, _: m.collect(list),
    "TUPLE": lambda m, _: m.collect(tuple),
    "DICT": lambda m, _: m.collect(_dictionary),
    "FROZENSET": lambda m, _: m.collect(lambda values: Stub(_FROZENSET, elements=values)),
    "TUPLE1": lambda m, _: m.fixed_tuple(1),
    "TUPLE2": lambda m, _: m.fixed_tuple(2),
    "TUPLE3": lambda m, _: m.fixed_tuple(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda m, _: m.set_items(m.to_mark()),
    "GLOBAL": _Machine.global_text,
    "STACK_GLOBAL": _Machine.global_stack,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.new_object_keywords,
    "INST": _Machine.instance,
    "OBJ": _Machine.object,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persist,
    "BINPERSID": lambda m, _: m.persist(m.pop()),
}
