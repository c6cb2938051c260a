# SPDX-License-Identifier: Apache-2.0
"""Turn a user's function into a pytree, so that arrays it captured are arguments of a program.

JAX compiles a program once per function object, and treats arrays that a function captured as
constants. So a function with new numbers would need a new program, or would use old numbers.

`hold` therefore pickles a callable together with what it refers to: captured variables, defaults,
the arguments of `functools.partial`, the object of a method, fields of modules, and the globals
that code of the user names. The pickle has holes. JAX arrays, traced or not, leave one each and
become leaves of a pytree. The bytes and the contents of the other holes are compared by value. So
a new lambda with the same code and the same numbers uses the compiled program of the old one; a
lambda with another number does not. A held callable keeps the values from the time when it was
read. If it writes to a captured list or object, it writes to a copy.

Some parts are compared by identity (``is``), so their changes are not noticed: modules, classes
and what their other methods refer to, globals of installed packages, and objects that are neither
modules of Equinox, nor pytrees, nor plain instances of the user's own classes.
`functools.partial` and modules with array fields are always taken apart.
"""

import dis
import functools
import io
import pickle
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

_JITTED = type(jax.jit(lambda x: x))
_WRAPPERS = (jax.custom_jvp, jax.custom_vjp)
_PICKLED = (bool, int, float, type(None), tuple, list, dict, set)  # pickle takes these apart
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
        return _Builder(self.plan, self.arrays).load()

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
    file = io.BytesIO()
    reader = _Reader(file)
    reader.dump(value)
    name = getattr(value, "__qualname__", type(value).__name__)
    return Held(reader.arrays, _Plan(file.getvalue(), reader.kept, reader.numbers, name))


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


class _Plan:
    """The bytes of a pickle with holes, and what is kept for those that no array fills.

    Two plans are equal if their bytes and the ``keys`` of what they keep are.
    """

    __slots__ = ("content", "hash", "kept", "key", "name")

    def __init__(self, content, kept, keys, name):
        self.content, self.kept, self.name = content, kept, name
        self.key = content, tuple(keys)
        self.hash = hash(self.key)

    def __repr__(self):
        return self.name

    def __deepcopy__(self, memo):  # it never changes, and modules that it keeps have no copy
        return self

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return isinstance(other, _Plan) and self.hash == other.hash and self.key == other.key


class _Whole:
    """A value that is kept whole, and the key by which it is compared: its identity by default."""

    __slots__ = ("key", "value")

    def __init__(self, value, *key):
        self.value, self.key = value, key or ("is", id(value))


class _Reader(pickle.Pickler):
    """Pickles a value, with holes for its arrays and for what is kept whole.

    ``numbers`` has the key of each entry of ``kept``, and its place there. ``places`` has the same
    for ``arrays``, by identity.
    """

    def __init__(self, file):
        super().__init__(file, protocol=5)
        self.arrays, self.places, self.kept, self.numbers = [], {}, [], {}

    def persistent_id(self, value):
        """Return the number of a hole, negative for arrays; None for a value that is pickled."""
        if isinstance(value, Array):
            place = self.places.setdefault(id(value), len(self.arrays))
            if place == len(self.arrays):
                self.arrays.append(value)
            return -1 - place
        whole = _whole(value)
        if whole is None:
            return None
        place = self.numbers.setdefault(whole.key, len(self.kept))
        if place == len(self.kept):
            self.kept.append(whole.value)
        return place

    def reducer_override(self, value):
        """Return a function and arguments that build a value, then its contents and their setter.

        Contents are set later because they may refer to the value itself.
        """
        kind = type(value)
        if isinstance(value, functools.partial):
            return NotImplemented  # pickle does as much
        if kind is types.FunctionType:
            return _function(value)
        if kind is types.MethodType:  # pickle would look the function up in the class
            return kind, (value.__func__, value.__self__)
        if kind is _JITTED:  # take out the function; what calls it will compile it
            return _itself, (value.__wrapped__,)
        if _is_named_tuple(value):
            return tuple.__new__, (kind, tuple(value))
        if _taken_apart(value):
            return object.__new__, (kind,), _contents(value), None, None, _fill_object
        parts, structure = _one_level(value)
        return _unflatten, (_Whole(structure, "tree", structure), parts)


class _Builder(pickle.Unpickler):
    """Builds a new value from a plan and arrays."""

    def __init__(self, plan, arrays):
        super().__init__(io.BytesIO(plan.content))
        self.kept, self.arrays = plan.kept, arrays

    def persistent_load(self, place):
        """Return what fills a hole."""
        return self.arrays[-1 - place] if place < 0 else self.kept[place]


def _whole(value):
    """Return a value that is kept whole, with its key; None for a value that is taken apart."""
    kind = type(value)
    if kind in _PICKLED:
        return None
    if kind is _Whole:
        return value

    # compared by value; the type belongs to the key, since equal values may differ in type
    if kind in (str, Name, bytes, types.CodeType, _Plan) or isinstance(value, np.dtype):
        return _Whole(value, kind, value)
    if kind in (complex, Number):
        return _Whole(value, kind, repr(value))
    if isinstance(value, np.generic):
        return _Whole(value, kind, value.tobytes())
    if kind is np.ndarray and not value.dtype.hasobject:
        content = value.tobytes()  # a copy that the user cannot change
        copy = np.ndarray(value.shape, value.dtype, content)
        return _Whole(copy, kind, str(value.dtype), value.shape, content)

    # taken apart
    if kind is types.FunctionType:
        own = value.__module__ == __name__  # it builds values, under type checkers by a closure
        inner = value.__closure__ or "<locals>" in value.__qualname__
        return _Whole(value) if own or not (inner or _of_user(value)) else None
    if kind is _JITTED:
        return _whole(value.__wrapped__) and _Whole(value)
    if isinstance(value, types.MethodType | functools.partial) or _is_named_tuple(value):
        return None
    if isinstance(value, type | types.ModuleType):
        return _Whole(value)
    return None if _taken_apart(value) or _one_level(value) else _Whole(value)


def _one_level(value):
    """Return the parts and the structure of a pytree; None for a value that is not one."""
    parts, structure = jax.tree.flatten(value, is_leaf=lambda v: v is not value)
    if jax.tree_util.treedef_is_leaf(structure):
        return None
    try:
        hash(structure)
    except TypeError:
        return None
    return parts, structure


def _is_named_tuple(value):
    """Return whether a value is a named tuple."""
    return isinstance(value, tuple) and hasattr(value, "_make")


def _function(value):
    """Return how a function is pickled."""
    # A function of an installed package keeps the globals of its module. A function of the user is
    # built with only those globals that its code names, with the values read here.
    scope, names, own = value.__globals__, {}, {}
    mine, cells = _of_user(value), value.__closure__ or ()
    if mine:
        names = {n: scope[n] for n in sorted(_global_names(value.__code__)) if n in scope}
        own = {k: v for k, v in vars(value).items() if k != "__wrapped__"}
    given = value.__code__, _Whole(scope), mine, value.__name__, len(cells)
    contents = value.__defaults__, value.__kwdefaults__, own, names, tuple(map(_content, cells))
    return _new_function, given, contents, None, None, _fill_function


def _content(cell):
    """Return the value of a captured variable."""
    try:
        return cell.cell_contents
    except ValueError:  # it has none yet
        return _EMPTY


# Functions that a plan calls to build values


def _itself(value):
    return value


def _unflatten(structure, parts):
    return structure.unflatten(parts)


def _new_function(code, scope, mine, name, cells):
    if mine:
        scope = {key: scope[key] for key in _SCOPE if key in scope}
    return types.FunctionType(
        code, scope, name, None, tuple(types.CellType() for _ in range(cells))
    )


def _fill_function(new, contents):
    new.__defaults__, new.__kwdefaults__, own, names, cells = contents
    vars(new).update(own)
    for cell, value in zip(new.__closure__ or (), cells, strict=True):
        if value is not _EMPTY:
            cell.cell_contents = value
    new.__globals__.update(names)


def _fill_object(new, contents):
    for name, value in contents.items():
        if isinstance(getattr(type(new), name, None), types.MemberDescriptorType):  # a slot
            object.__setattr__(new, name, value)
        else:  # bypass the class's own __setattr__
            vars(new)[name] = value
