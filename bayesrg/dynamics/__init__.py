# SPDX-License-Identifier: Apache-2.0
"""Training dynamics, in closed form and step by step."""

from .._paths import Paths
from .action import (
    alignment_with_descent,
    displacement,
    kinetic_energy,
    layer_action,
    relative_displacement,
    straightness,
    transport_cost,
)
from .core import DIVERGED, GO, REACHED, Algorithm, Info, State, Trajectory, optax_descent, run
from .counts import step_count
from .dyson import dyson
from .ensemble import ensemble
from .gradient import gradient_descent, gradient_flow
from .landmarks import landmark_preconditioner, power_iteration
from .langevin import minibatch, sgld
from .least_action import least_action
from .linear import linear_dynamics, stability_limit
from .losses import pgd_loss, scale_by_output_preconditioner
from .preconditioned import dual, preconditioned, sgd
from .preconditioner import preconditioner
from .rbm import gaussian_rbm, lattice
from .teacher_student import teacher_student
from .wasserstein import wasserstein

__all__ = [
    "DIVERGED",
    "GO",
    "REACHED",
    "Algorithm",
    "Info",
    "Paths",
    "State",
    "Trajectory",
    "alignment_with_descent",
    "displacement",
    "dual",
    "dyson",
    "ensemble",
    "gaussian_rbm",
    "gradient_descent",
    "gradient_flow",
    "kinetic_energy",
    "landmark_preconditioner",
    "lattice",
    "layer_action",
    "least_action",
    "linear_dynamics",
    "minibatch",
    "optax_descent",
    "pgd_loss",
    "power_iteration",
    "preconditioned",
    "preconditioner",
    "relative_displacement",
    "run",
    "scale_by_output_preconditioner",
    "sgd",
    "sgld",
    "stability_limit",
    "step_count",
    "straightness",
    "teacher_student",
    "transport_cost",
    "wasserstein",
]
