# SPDX-License-Identifier: Apache-2.0
"""Turn a user's function into a pytree, so that arrays it captured are arguments of a program.

JAX compiles a program once per function object, and treats arrays that a function captured as
constants. So a function with new numbers would need a new program, or would use old numbers.

`hold` therefore takes a callable apart: captured variables, defaults, the arguments of
`functools.partial`, the object of a method, fields of modules, and the globals that code of the
user refers to. JAX arrays among them, traced or not, become leaves of a pytree. All else is copied
into a plan, which is compared by value. So a new lambda with the same code and the same numbers
uses the compiled program of the old one; a lambda with another number does not. A held callable
keeps the values from the time when it was read. If it writes to a captured list or object, it
writes to a copy.

Some parts are compared by identity (``is``), so their changes are not noticed: modules, classes
and what their other methods refer to, globals of installed packages, and objects that are neither
modules of Equinox, nor pytrees, nor plain instances of the user's own classes.
`functools.partial` and modules with array fields are always taken apart.
"""

import dis
import functools
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented))
_JITTED = type(jax.jit(lambda x: x))
_WRAPPERS = (jax.custom_jvp, jax.custom_vjp)
_SCOPE = ("__builtins__", "__name__", "__package__", "__spec__", "__file__")  # kept of any module
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")  # instructions for globals
_HEAP = 1 << 9  # flag of classes that are written in Python
_EMPTY = object()  # stands for a variable without a value


class Held(eqx.Module):
    """A callable, or a structure of callables, as a pytree of its arrays. Made by `hold`."""

    arrays: list[Array]
    plan: "_Plan" = eqx.field(static=True)

    def open(self) -> Any:
        """Return the callable or structure, built from the plan and the present arrays."""
        return _Builder(self.arrays).build(self.plan.root)

    def __call__(self, *args, **kwargs):
        return self.open()(*args, **kwargs)

    @property
    def traced(self) -> bool:
        """Whether a JAX transformation traces one of the arrays."""
        return any(isinstance(v, jax.core.Tracer) for v in self.arrays)

    def __repr__(self):
        return self.plan.name

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


def hold(value) -> Held:
    """Return a callable, or a structure of callables, as a pytree whose leaves are its arrays."""
    if isinstance(value, Held):
        return value
    reader = _Reader()
    root = reader.read(value)
    name = getattr(value, "__qualname__", type(value).__name__)
    return Held(reader.arrays, _Plan(root, name))


def as_pytree(function):
    """Return a callable as a pytree: unchanged if it is one of arrays, otherwise held by `hold`."""
    # one that is a pytree already keeps its named fields
    leaves, structure = jax.tree.flatten(function)
    plain = jax.tree_util.treedef_is_leaf(structure) or isinstance(function, functools.partial)
    return hold(function) if plain or not all(map(eqx.is_array_like, leaves)) else function


def still(value):
    """Return a name or number as a pytree without leaves; return other values unchanged.

    Fields that may hold an array or a plain value use it: a plain value is then static.
    """
    if isinstance(value, str):
        return Name(value)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return value
    return Number(value)


class Name(str):
    """String that is a pytree without leaves, and so static."""

    __slots__ = ()


class Number(float):
    """Number that is a pytree without leaves, and so static.

    Convert it by ``float`` before giving it to a function of JAX.
    """

    __slots__ = ()


for _kind, _base in ((Name, str), (Number, float)):
    jax.tree_util.register_pytree_node(
        _kind, lambda v, base=_base: ((), base(v)), lambda v, _, kind=_kind: kind(v)
    )


class _Plan:
    """How to build a value from arrays: nested tuples of plain parts, which compare by value."""

    __slots__ = ("hash", "name", "root")

    def __init__(self, root, name):
        self.root, self.name, self.hash = root, name, hash(root)

    def __repr__(self):
        return self.name

    def __deepcopy__(self, memo):  # it never changes, and modules among its parts have no copy
        return self

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return isinstance(other, _Plan) and self.hash == other.hash and self.root == other.root


class _Atom:
    """A part of a plan that is not taken apart further, with the key by which it is compared."""

    __slots__ = ("key", "value")

    def __init__(self, value, *key):
        self.value, self.key = value, key or ("is", id(value))

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return isinstance(other, _Atom) and self.key == other.key


@functools.lru_cache(None)
def _installed(name):
    """Return whether a module belongs to this package, an installed one or the standard library."""
    if name.partition(".")[0] in ("bayesrg", "builtins"):
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name != "__main__" and name.partition(".")[0] in sys.stdlib_module_names
    paths = sysconfig.get_paths()
    roots = {paths[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(part in ("site-packages", "dist-packages") for part in Path(file).parts) or any(
        Path(root) in Path(file).parents for root in roots
    )


def _of_user(value):
    """Return whether a function or class is defined in code of the user."""
    return not _installed(getattr(value, "__module__", None) or "__main__")


@functools.lru_cache(1024)
def _global_names(code):
    """Return the names of globals that code refers to, including functions defined inside it."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in _LOADS}
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return frozenset(names.union(*map(_global_names, inner)))


def _taken_apart(value):
    """Return whether an object can be copied by copying its attributes."""
    kind = type(value)
    if isinstance(value, eqx.Module):
        return True
    if isinstance(value, _WRAPPERS):
        return _of_user(value)

    # A class with its own way to make or pickle instances, or with a base written in C, may store
    # values outside its attributes.
    return (
        _of_user(kind)
        and kind.__new__ is object.__new__
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and all(base.__flags__ & _HEAP for base in kind.__mro__[:-1])
    )


def _contents(value):
    """Return the attributes of an object, as a dictionary from name to value.

    Plain data that its user-defined classes hold count too, unless attributes hide them.
    """
    contents, state = {}, object.__getstate__(value)
    own, slots = state if isinstance(state, tuple) else (state, None)
    for base in reversed(type(value).__mro__[:-1]):
        if _of_user(base) and not isinstance(value, eqx.Module):
            for name, entry in vars(base).items():
                hidden = name.startswith("__") or name.startswith("_abc")
                if not hidden and not callable(entry) and not hasattr(type(entry), "__get__"):
                    contents[name] = entry
    return contents | (own or {}) | (slots or {})


class _Reader:
    """Takes values apart into arrays and a plan.

    Objects that may be shared, or that may refer to themselves, are read once. Later references are
    written as their number in ``kept``, the list that also keeps them alive.
    """

    def __init__(self):
        self.arrays, self.numbers, self.kept = [], {}, []

    def read(self, value):
        """Return the plan of a value: an `_Atom`, or a tuple of the kind and its parts."""
        if isinstance(value, Array):
            return "array", self._number(value, self.arrays)

        # plain values; the type belongs to the key, since 1, 1.0 and True are equal
        kind = type(value)
        if kind in _PLAIN:
            return _Atom(value, kind, repr(value) if kind in (float, complex) else value)
        if isinstance(value, _Plan):
            return _Atom(value, _Plan, value)
        if isinstance(value, np.dtype):
            return _Atom(value, kind, value)
        if isinstance(value, np.generic):
            return _Atom(value, kind, value.tobytes())
        if kind is np.ndarray and not value.dtype.hasobject:
            content = value.tobytes()  # a copy that the user cannot change
            copy = np.ndarray(value.shape, value.dtype, content)
            return _Atom(copy, kind, str(value.dtype), value.shape, content)

        # values that cannot refer to themselves
        if kind is tuple:
            return "tuple", *map(self.read, value)
        if isinstance(value, tuple) and hasattr(kind, "_make"):
            return "named", _Atom(kind), *map(self.read, value)
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return "partial", _Atom(kind), *map(self.read, parts)
        if isinstance(value, types.MethodType):
            return "method", self.read(value.__func__), self.read(value.__self__)
        if kind is _JITTED:  # take out the function; what calls it will compile it
            inner = self.read(value.__wrapped__)
            return _Atom(value) if isinstance(inner, _Atom) else inner

        # values that can: the second time they are met, refer to the first
        if id(value) in self.numbers:
            return "again", self.numbers[id(value)]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if kind in (list, dict, set):
            here = self._number(value, self.kept)
            if kind is dict:
                return "dict", here, *((self.read(k), self.read(v)) for k, v in value.items())
            return kind.__name__, here, *map(self.read, value)
        if isinstance(value, type | types.ModuleType):
            return _Atom(value)
        if _taken_apart(value):
            here = self._number(value, self.kept)
            fields = ((name, self.read(v)) for name, v in _contents(value).items())
            return "object", here, _Atom(kind), *fields
        return self._tree(value)

    def _number(self, value, among):
        """Return the number of an object in the list ``among``, where it is added if it is new."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(among)
            among.append(value)
        return self.numbers[id(value)]

    def _function(self, value):
        """Return the plan of a function."""
        # A function of an installed package keeps the globals of its module. A function of the user
        # is built with only those globals that its code names, with the values read here.
        mine, cells = _of_user(value), value.__closure__ or ()
        if not mine and not cells and "<locals>" not in value.__qualname__:
            return _Atom(value)
        here = self._number(value, self.kept)
        scope, names = value.__globals__, ()
        if mine:
            names = sorted(n for n in _global_names(value.__code__) if n in scope)
        own = {k: v for k, v in vars(value).items() if k != "__wrapped__"} if mine else {}
        return (
            "function",
            here,
            value.__code__,
            _Atom(scope),
            mine,
            value.__name__,
            self.read(value.__defaults__),
            self.read(value.__kwdefaults__),
            self.read(own),
            tuple(map(self._cell, cells)),
            tuple((name, self.read(scope[name])) for name in names),
        )

    def _cell(self, cell):
        """Return the plan of a captured variable."""
        try:
            return self.read(cell.cell_contents)
        except ValueError:  # a variable without a value yet
            return _Atom(_EMPTY)

    def _tree(self, value):
        """Return the plan of a pytree, one level at a time, or of a value that is not a pytree."""
        parts, structure = jax.tree.flatten(value, is_leaf=lambda v: v is not value)
        if jax.tree_util.treedef_is_leaf(structure):
            return _Atom(value)
        try:
            hash(structure)
        except TypeError:
            return _Atom(value)
        self.kept.append(value)  # keeps the parts alive: ``numbers`` uses their ids
        return "tree", _Atom(structure, "tree", structure), *map(self.read, parts)


class _Builder:
    """Builds new values from a plan and arrays. Method ``_kind`` builds parts of that kind."""

    def __init__(self, arrays):
        self.arrays, self.built = arrays, {}

    def build(self, plan):
        """Return the value of a plan."""
        if isinstance(plan, _Atom):
            return plan.value
        kind, *parts = plan
        return getattr(self, f"_{kind}")(*parts)

    def _all(self, parts):
        return [self.build(part) for part in parts]

    def _array(self, number):
        return self.arrays[number]

    def _again(self, number):
        return self.built[number]

    def _tuple(self, *parts):
        return tuple(self._all(parts))

    def _named(self, kind, *parts):
        return kind.value._make(self._all(parts))

    def _partial(self, kind, function, args, keywords):
        return kind.value(self.build(function), *self.build(args), **self.build(keywords))

    def _method(self, function, owner):
        return types.MethodType(self.build(function), self.build(owner))

    def _tree(self, structure, *parts):
        return structure.value.unflatten(self._all(parts))

    def _list(self, here, *parts):
        new = self.built[here] = []
        new.extend(self._all(parts))
        return new

    def _set(self, here, *parts):
        new = self.built[here] = set()
        new.update(self._all(parts))
        return new

    def _dict(self, here, *parts):
        new = self.built[here] = {}
        new.update((self.build(k), self.build(v)) for k, v in parts)
        return new

    def _object(self, here, kind, *fields):
        new = self.built[here] = object.__new__(kind.value)
        for name, part in fields:
            if isinstance(getattr(kind.value, name, None), types.MemberDescriptorType):  # a slot
                object.__setattr__(new, name, self.build(part))
            else:  # bypass the class's own __setattr__
                vars(new)[name] = self.build(part)
        return new

    def _function(self, here, code, scope, mine, name, defaults, keywords, own, cells, names):
        scope = scope.value
        if mine:
            scope = {key: scope[key] for key in _SCOPE if key in scope}
        boxes = tuple(types.CellType() for _ in cells)
        new = self.built[here] = types.FunctionType(code, scope, name, None, boxes)

        # the function must exist before its parts are built, since they may refer to it
        new.__defaults__, new.__kwdefaults__ = self.build(defaults), self.build(keywords)
        vars(new).update(self.build(own))
        for box, part in zip(boxes, cells, strict=True):
            value = self.build(part)
            if value is not _EMPTY:
                box.cell_contents = value
        if mine:
            scope.update((key, self.build(part)) for key, part in names)
        return new
