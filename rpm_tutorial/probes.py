"""What a representation is worth, by scikit-learn: fitted on one set of latents, scored on another.

Arguments are tensors: latents of shape (n, d), labels of shape (n,), true factors of shape (n, k). All scores are floats.
All raise `ValueError` for NaN, infinite or enormous numbers, for shapes that do not match, and for too few rows.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ._checks import check_count, check_positive, check_range, check_tensor, shape_of
from ._log_space import float64

__all__ = ["linear_probe", "match", "mean_correlation", "nearest_neighbours", "r_squared"]

MOST = 1e15  # the largest number in latents and factors: its square is far from the largest of float32


def linear_probe(z: Tensor, labels: Tensor, z_test: Tensor, labels_test: Tensor, *, C: float = 0.01) -> float:
    """Test accuracy, in [0, 1], of a logistic regression on standardised latents; C is its inverse regularisation."""
    C = check_positive("C", C)
    if not 1 / MOST <= C <= MOST:
        raise ValueError(f"C is {C}; expected a number from {1 / MOST:.0e} to {MOST:.0e}")
    _check_labelled(z, labels, z_test, labels_test)
    if len(labels.unique()) < 2:
        raise ValueError(f"labels has one class, {labels[0].item()}; expected at least two to tell apart")
    width = float64(z.detach()).amax(0) - float64(z.detach()).amin(0)
    if ((width > 0) & (width < 1 / MOST)).any():
        column = int(((width > 0) & (width < 1 / MOST)).nonzero()[0])
        raise ValueError(
            f"column {column} of z varies by {width[column].item():.3g}; expected at least {1 / MOST:.0e}, or not at all: "
            "standardised, it would overflow"
        )
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=300))
    return float(probe.fit(_array(z), _array(labels)).score(_array(z_test), _array(labels_test)))


def nearest_neighbours(z: Tensor, labels: Tensor, z_test: Tensor, labels_test: Tensor, *, k: int = 10) -> float:
    """Test accuracy, in [0, 1], of k nearest neighbours by cosine."""
    k = check_count("k", k)
    _check_labelled(z, labels, z_test, labels_test)
    if k > len(z):
        raise ValueError(f"k is {k}; expected at most the {len(z)} rows of z")
    probe = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    return float(probe.fit(_array(z), _array(labels)).score(_array(z_test), _array(labels_test)))


def r_squared(z: Tensor, factors: Tensor, z_test: Tensor, factors_test: Tensor) -> float:
    """Test R^2, at most 1, of a linear regression from latents to true factors, averaged over factors."""
    _check_rows(("z", z), ("factors", factors))
    _check_rows(("z_test", z_test), ("factors_test", factors_test))
    _check_columns(("z", z), ("z_test", z_test))
    _check_columns(("factors", factors), ("factors_test", factors_test))
    if len(z_test) < 2:
        raise ValueError(f"z_test has {len(z_test)} row; expected at least two: R^2 is relative to a variance")
    return float(LinearRegression().fit(_array(z), _array(factors)).score(_array(z_test), _array(factors_test)))


def mean_correlation(z: Tensor, factors: Tensor) -> float:
    """The mean correlation coefficient (MCC), in [0, 1]: each factor matched with one latent, signs ignored.

    A factor without a latent of its own, and a latent that never changes, count as uncorrelated.
    """
    _check_rows(("z", z), ("factors", factors))
    if len(z) < 2:
        raise ValueError(f"z has {len(z)} row; expected at least two: a correlation is relative to a variance")
    k = factors.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant latent has no correlation: 0/0
        correlation = np.nan_to_num(np.abs(np.corrcoef(_array(z).T, _array(factors).T)[:-k, -k:]))
    return float(correlation[linear_sum_assignment(-correlation)].sum() / k)


def match(counts: Tensor) -> Tensor:
    """For each row of a table its own column, chosen so that the total is largest (the Hungarian method): shape (rows,), int64.

    With classes as rows and categories as columns, `counts[:, match(counts)]` has the agreement on its diagonal. Raises
    `ValueError` if there are fewer columns than rows.
    """
    device = getattr(counts, "device", None)
    if isinstance(counts, Tensor) and not counts.is_complex():
        counts = float64(counts)
    check_tensor("counts", counts, dims=2)
    check_range("an entry of counts", counts)
    if counts.shape[0] > counts.shape[1]:
        raise ValueError(
            f"counts has {counts.shape[0]} rows and {counts.shape[1]} columns; expected a column for each row"
        )
    return torch.from_numpy(linear_sum_assignment(_array(counts), maximize=True)[1]).to(device)


def _array(tensor: Tensor) -> np.ndarray:
    half = tensor.dtype in (torch.float16, torch.bfloat16)  # numpy has no bfloat16, and scikit-learn no float16
    return (tensor.float() if half else tensor).detach().cpu().numpy()


def _check_rows(*named: tuple[str, Tensor]) -> None:
    """Raise unless these are tables of usable numbers with one row each per observation."""
    for name, table in named:
        check_tensor(name, table, dims=2)
        largest = table.detach().abs().max().item()
        if largest > MOST:
            raise ValueError(f"{name} reaches {largest:.3g}; expected at most {MOST:.0e}: divide it by its spread")
    (name, table), (other, other_table) = named
    if len(table) != len(other_table):
        raise ValueError(
            f"{name} has shape {shape_of(table)} and {other} {shape_of(other_table)}; expected one row each per observation"
        )


def _check_columns(named: tuple[str, Tensor], other: tuple[str, Tensor]) -> None:
    if named[1].shape[1] != other[1].shape[1]:
        raise ValueError(
            f"{named[0]} has shape {shape_of(named[1])} and {other[0]} {shape_of(other[1])}; expected the same columns"
        )


def _check_labelled(z: Tensor, labels: Tensor, z_test: Tensor, labels_test: Tensor) -> None:
    for (name, table), (other, classes) in (
        (("z", z), ("labels", labels)),
        (("z_test", z_test), ("labels_test", labels_test)),
    ):
        if not isinstance(classes, Tensor) or classes.dim() != 1 or classes.is_floating_point() or classes.is_complex():
            found = f"{classes.dtype} {shape_of(classes)}" if isinstance(classes, Tensor) else type(classes).__name__
            raise TypeError(f"{other} is a {found}; expected a torch.Tensor of shape (n,) with whole numbers")
        _check_rows((name, table), (other, float64(classes)[:, None]))
    _check_columns(("z", z), ("z_test", z_test))
