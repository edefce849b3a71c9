"""What a representation is worth, by scikit-learn: fitted on one set of latents, scored on another.

Arguments are tensors or arrays: latents of shape (n, d), labels of shape (n,), true factors of shape (n, k). All scores are floats.
NaN, infinities, shapes that do not match and too few rows are refused by scikit-learn (`ValueError`).
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array
from torch import Tensor

from ._checks import shape_of

__all__ = ["linear_probe", "match", "mean_correlation", "nearest_neighbours", "r_squared"]


def linear_probe(z: Tensor, labels: Tensor, z_test: Tensor, labels_test: Tensor, *, C: float = 0.01) -> float:
    """Test accuracy, in [0, 1], of a logistic regression on standardised latents; C is its inverse regularisation."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=float(C), max_iter=300))
    return float(probe.fit(_array(z), _array(labels)).score(_array(z_test), _array(labels_test)))


def nearest_neighbours(z: Tensor, labels: Tensor, z_test: Tensor, labels_test: Tensor, *, k: int = 10) -> float:
    """Test accuracy, in [0, 1], of k nearest neighbours by cosine."""
    probe = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    return float(probe.fit(_array(z), _array(labels)).score(_array(z_test), _array(labels_test)))


def r_squared(z: Tensor, factors: Tensor, z_test: Tensor, factors_test: Tensor) -> float:
    """Test R^2, at most 1, of a linear regression from latents to true factors, averaged over factors."""
    return float(LinearRegression().fit(_array(z), _array(factors)).score(_array(z_test), _array(factors_test)))


def mean_correlation(z: Tensor, factors: Tensor) -> float:
    """The mean correlation coefficient (MCC), in [0, 1]: each factor matched with one latent, signs ignored.

    A factor without a latent of its own, and a latent that never changes, count as uncorrelated.
    """
    latents, true = (check_array(_array(table), ensure_min_samples=2) for table in (z, factors))
    k = true.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant latent has no correlation: 0/0
        correlation = np.nan_to_num(np.abs(np.corrcoef(latents.T, true.T)[:-k, -k:]))
    return float(correlation[linear_sum_assignment(-correlation)].sum() / k)


def match(counts: Tensor) -> Tensor:
    """For each row of a table its own column, chosen so that the total is largest (the Hungarian method): shape (rows,), int64.

    With classes as rows and categories as columns, `counts[:, match(counts)]` has the agreement on its diagonal. Raises
    `ValueError` if there are fewer columns than rows.
    """
    if counts.shape[0] > counts.shape[1]:  # scipy would leave rows out
        raise ValueError(f"counts has shape {shape_of(counts)}; expected a column for each row")
    return torch.from_numpy(linear_sum_assignment(_array(counts), maximize=True)[1]).to(
        getattr(counts, "device", "cpu")
    )


def _array(tensor: Tensor | np.ndarray) -> np.ndarray:
    if not isinstance(tensor, Tensor):
        return np.asarray(tensor)
    half = tensor.dtype in (torch.float16, torch.bfloat16)  # numpy has no bfloat16, and scikit-learn no float16
    return (tensor.float() if half else tensor).detach().cpu().numpy()
