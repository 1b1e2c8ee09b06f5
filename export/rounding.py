"""Weights rounded to int8, one by one, so that their errors cancel over the inputs they will multiply.

Rounding every weight to the nearest integer makes Σ(w - q)·z small only if the inputs z are independent. Inputs of a
recurrent layer are not: h follows x. With their second moments M known, the error that is left is (w - q)ᵀ M (w - q);
after each weight that is rounded, those not yet rounded are moved to where they make up best for it (Hassibi and
Stork, "Optimal Brain Surgeon", 1993; Frantar et al., "GPTQ", ICLR 2023, whose order and Cholesky form these are). It
costs nothing in the file and nothing at run time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.network import Network
from .calibration import Calibration
from .products import Product, answers

Floats = npt.NDArray[np.float64]
# Added to each second moment, in parts of their mean: how far inputs may leave what calibration has seen of them. The
# second is for each timestep and input: of few timesteps, the moments are those of chance.
DAMPING, CHANCE = 1e-3, 0.1
# Columns after which the rest of the weights is brought up to date, in one matrix product.
_BLOCK = 64


def row_scales(weights: npt.NDArray[np.floating]) -> Floats:
    """For each row of (rows, columns) the step of its int8 grid, (rows, 1): that of the largest is 127."""
    largest = np.abs(weights).max(axis=1, keepdims=True, initial=0).astype(np.float64)
    return np.where(largest > 0, largest, 1.0) / 127


def nearest(weights: npt.NDArray[np.floating], scales: Floats) -> npt.NDArray[np.int8]:
    """Weights (rows, columns) in steps of `scales`, which broadcast to them, each rounded by itself."""
    return np.clip(np.rint(weights / scales), -127, 127).astype(np.int8)


def by_moments(
    weights: npt.NDArray[np.floating], scales: Floats, moments: Floats, count: int, largest: Floats
) -> npt.NDArray[np.int8]:
    """Weights (rows, columns) in steps of `scales`, rounded so that errors cancel over inputs of these moments.

    Args:
        weights: the real ones.
        scales: broadcast to the weights.
        moments: Σ zᵀz / count, (columns, columns).
        count: of how many inputs these are.
        largest: of the inputs, (columns,): what a feature's moments are measured against, so that one of a hundred
            thousand pascal counts no more than one of half a volt.
    """
    unit = np.where(largest > 0, largest, 1.0)
    hessian = moments / unit / unit[:, None]
    mean = float(np.mean(np.diag(hessian)))
    if mean == 0:
        return nearest(weights, scales)
    hessian[np.diag_indices_from(hessian)] += (DAMPING + CHANCE * len(unit) / count) * mean
    # The inputs that matter most go first, while there are others left to make up for them.
    order = np.argsort(-np.diag(hessian), kind="stable")
    scales = np.broadcast_to(scales, weights.shape)[:, order] * unit[order]
    left = weights[:, order] * unit[order].astype(np.float64)
    factor = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
    # The largest of a row stays where its scale puts it: who computes the scale anew must find the same.
    fixed = np.abs(left) > 126.9 * scales
    steps = np.where(fixed, np.sign(left) * 127, 0.0)
    for start in range(0, left.shape[1], _BLOCK):
        end = min(start + _BLOCK, left.shape[1])
        errors = np.empty((len(left), end - start))
        for j in range(start, end):
            rounded = np.clip(np.rint(left[:, j] / scales[:, j]), -127, 127)
            steps[:, j] = np.where(fixed[:, j], steps[:, j], rounded)
            errors[:, j - start] = (left[:, j] - steps[:, j] * scales[:, j]) / factor[j, j]
            left[:, j + 1 : end] -= errors[:, j - start, None] * factor[j, j + 1 : end]
        left[:, end:] -= errors @ factor[start:end, end:]
    result = np.empty_like(steps)
    result[:, order] = steps
    return result.astype(np.int8)


class Rounding:
    """Rounds the products of a network, each in the way that keeps its layer's answers nearer to the exact ones.

    That is found by running the layer, with this one product rounded to the nearest or `by_moments`, over sequences
    that the moments were not taken from.
    """

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._exact: dict[str, npt.NDArray[np.float32]] = {}

    def int8(
        self, product: Product, scales: Floats, base: npt.NDArray[np.floating] | float = 0.0
    ) -> npt.NDArray[np.int8]:
        """A product's weights as int8 (columns of the kernel, inputs).

        Args:
            product: which.
            scales: the real value of one step, broadcast to the same shape.
            base: what is there of the weights already, in the same shape, where these are a second part.
        """
        seen = self._calibration.of(product)
        rest = product.weights.T.astype(np.float64) - base
        plain = nearest(rest, scales)
        learned = by_moments(rest, scales, seen.moments_of(product), seen.count, seen.largest_of(product))
        if self._error(product, base + learned * scales) < self._error(product, base + plain * scales):
            return learned
        return plain

    def _error(self, product: Product, weights: Floats) -> float:
        """The squared error of the layer's answers with these weights, where they count."""
        seen = self._calibration.of(product)
        name = product.layer.name
        with np.errstate(all="ignore"):  # What overflows is not better than anything.
            if name not in self._exact:
                self._exact[name] = answers(product.layer, seen.sequences)
            rounded = answers(product.with_weights(weights.T), seen.sequences)
            error = float(np.square(rounded - self._exact[name], dtype=np.float64)[seen.counted].sum())
        return error if np.isfinite(error) else np.inf


def round_network(network: Network, chosen: Iterable[Product], apart: bool, calibration: Calibration | None) -> Network:
    """A network whose chosen products have weights that int8 holds without a loss.

    Whoever then takes each row's largest weight for 127 steps finds the steps that were chosen here.

    Args:
        network: of any layers.
        chosen: products, or parts of products, of its layers.
        apart: whether the weights of each input (x, h) have scales of their own, or the whole row one.
        calibration: what `record` found of the same network; None rounds every weight to the nearest.
    """
    rounding = None if calibration is None else Rounding(calibration)
    layers: dict[str, Any] = {layer.name: layer for layer in network.layers}
    for product in chosen:
        if apart:
            scales = np.concatenate([np.broadcast_to(row_scales(part.T), part.T.shape) for part in product.parts], 1)
        else:
            scales = row_scales(product.weights.T)
        changed = product.of(layers[product.layer.name])
        steps = nearest(product.weights.T, scales) if rounding is None else rounding.int8(product, scales)
        layers[product.layer.name] = changed.with_weights((steps * scales).T)
    return replace(network, layers=tuple(layers[layer.name] for layer in network.layers))
