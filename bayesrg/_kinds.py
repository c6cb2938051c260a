# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments that are not numbers: objects, functions, flags and choices."""

import numpy as np

from ._numbers import shown

KERNEL = "a Kernel; bayesrg.kernels has them, and adapt makes one from a function"
PRIOR = "a Kernel or a Spectrum; see bayesrg.kernels and bayesrg.spectrum"
MOMENTS = "moments, which theory.moments, population_moments or spectral_moments make"
NET = "a networks.DeepLinear; make one of widths and a ridge"
TREE = "a DataTree, such as bayesrg.fit returns"


def sequence(name, value, what="one entry per layer"):
    """Require a list or tuple; ``what`` says of what."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} must be a list of {what}, got {shown(value)}")
    return value


def choice(name, value, allowed):
    """Require ``value`` to be one of ``allowed``."""
    if not any(value is a or (isinstance(value, type(a)) and value == a) for a in allowed):
        options = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {options}, got {shown(value)}")
    return value


def flag(name, value):
    """Require a boolean, of Python or NumPy."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def function(name, value, what="a function"):
    """Require a callable; ``what`` says of which kind."""
    if not callable(value):
        raise ValueError(f"{name} must be {what}, got {shown(value)}; give a callable")
    return value


def instance(name, value, kinds, what):
    """Require an object of one of ``kinds``; ``what`` says which, and how to make one."""
    if not isinstance(value, kinds):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return value
