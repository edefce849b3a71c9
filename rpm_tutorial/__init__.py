"""InfoNCE is variational inference in a recognition-parameterised model: a course that runs.

Names load on first use, so that importing the package costs nothing.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "objectives": (
        "Objective",
        "infonce",
        "symmetric_infonce",
        "donsker_varadhan",
        "nwj",
        "barber_agakov",
        "mutual_information",
    ),
    "finite": ("FiniteRPM", "ELBO"),
    "shared": ("SharedLatentRPM",),
    "chain": ("GaussianChain",),
    "critics": ("RandomWalk", "LaplaceWalk", "VonMisesFisher", "LinearDynamics", "Bilinear", "Universal", "WithBias"),
    "evidence": ("Evidence", "dataset_evidence", "SampledEvidence", "sampled_evidence"),
    "checking": ("Check", "CriticReport", "check_critic"),
    "checkpoints": ("load_checkpoint", "save_checkpoint"),
    "training": ("LogRow", "Trainer", "train", "encode"),
    "runtime": ("setup", "self_check", "show_source"),
    "widgets": ("explore",),
    "dashboard": ("TrainingDashboard",),
}
_MODULES = (
    *_HOME,
    "priors",
    "gaussian",
    "estimators",
    "datasets",
    "distributed",
    "encoders",
    "probes",
    "figures",
    "derivation",
    "explorations",
    "exercises",
    "classroom",
    "cli",
)
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [*_MODULE_OF, *_MODULES]


def __getattr__(name: str):
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"rpm_tutorial has no {name!r}; it has {', '.join(sorted(__all__))}")


def __dir__():
    return sorted([*globals(), *__all__])
