"""What claims are judged on: networks measured on the same images, and estimates with errors from them.

Two things are random in a statistic of trained networks: which images were measured, and how the trainings
went. The error from the images comes from influence functions (the derivative of the statistic by the column
means, image by image); that from the trainings from the seeds or, where each network was trained once, from
an assumed spread. What is chosen by its size is chosen on one half of the images and of the seeds, and judged
on the other; the halves take turns.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from scipy.stats import t as student  # type: ignore[import-untyped]
from torch import Tensor

from pags.errors import UsageError
from pags.seeds import generator

Columns = Mapping[str, Tensor]
"""One number per image, by the names in `pags.records`."""

ASSUMED = 8
"""How many further trainings the assumed spread counts as, beside those at hand."""


def numbered(models: Sequence[Sequence[Columns]]) -> list[dict[str, Columns]]:
    """The networks of a sweep by their places, for each seed."""
    return [{str(place): columns for place, columns in enumerate(each)} for each in models]


class Undecidable(Exception):
    """A claim that these networks say nothing about, and why."""


@dataclass(frozen=True)
class Quantity:
    """A number per network: a function of its column means, and the assumed spread of it among trainings.

    Args:
        of: from a function that gives a column's means, one per network, to one number per network.
        spread: standard deviation among trainings that differ in their seed alone.
    """

    of: Callable[[Callable[[str], Tensor]], Tensor]
    spread: float = 0.0

    def reads(self) -> set[str]:
        """The columns that it is a function of."""
        names: set[str] = set()

        def recorded(name: str) -> Tensor:
            names.add(name)
            return torch.ones(1)

        self.of(recorded)
        return names


@dataclass(frozen=True)
class Means:
    """The quantities of every network on some of the images, for one seed or averaged over several.

    `means["off/on"]` holds one value for each of the `ranked` networks (the strengths of a sweep, rising);
    `means.of("untrained", "off/on")` is that of one network by its name.
    """

    names: tuple[str, ...]
    ranked: int
    columns: Mapping[str, int]
    quantities: Mapping[str, Quantity]
    table: Tensor  # (networks, columns)
    shifts: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, quantity: str) -> Tensor:  # (ranked,)
        return self._values(quantity)[: self.ranked]

    def of(self, network: str, quantity: str) -> Tensor:
        """One network's value."""
        if network not in self.names:
            raise Undecidable(f"needs the network {network!r}")
        return self._values(quantity)[self.names.index(network)]

    def __contains__(self, network: str) -> bool:
        return network in self.names

    def _values(self, quantity: str) -> Tensor:  # (networks,)
        if quantity not in self.shifts:
            self.shifts[quantity] = torch.zeros(len(self.names), dtype=torch.float64, requires_grad=True)
        return self.quantities[quantity].of(self._column) + self.shifts[quantity]

    def _column(self, name: str) -> Tensor:
        if name not in self.columns:
            raise Undecidable(f"needs the column {name!r}")
        return self.table[:, self.columns[name]]


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error, and the degrees of freedom of that error."""

    value: float
    error: float
    freedom: float

    @property
    def in_errors(self) -> float:
        """The value in standard errors."""
        if self.error:
            return self.value / self.error
        return math.copysign(math.inf, self.value) if self.value else 0.0

    @property
    def p_not_above(self) -> float:
        """The probability of such a value, or a larger one, where the truth is 0."""
        return float(student.sf(self.in_errors, self.freedom))

    def low(self, tail: float) -> float:
        """The lower end of the interval that leaves out `tail` on that side."""
        return self.value - float(student.isf(tail, self.freedom)) * self.error

    def high(self, tail: float) -> float:
        """The upper end."""
        return self.value + float(student.isf(tail, self.freedom)) * self.error


Statistic = Callable[[Means, Means], Sequence[Tensor] | Tensor]
"""Numbers from networks as judged, and from the same on the images and seeds that strengths are chosen on."""

HALVES = (0, 1)


@dataclass(frozen=True)
class Networks:
    """Networks measured on the same images.

    Args:
        models: for each seed, the columns of each network by its name; the same networks for every seed, and
            row i of every column is the same image. Images without a value (NaN) are left out of a column.
        quantities: what statistics are functions of.
        ranked: how many of the networks, from the first, are ranked (the strengths of a sweep).
        seed: names the halves.

    Raises:
        UsageError: other networks or images in one seed than in another, or fewer than 4 images.
    """

    models: Sequence[Mapping[str, Columns]]
    quantities: Mapping[str, Quantity]
    ranked: int
    seed: int = 0

    def __post_init__(self) -> None:
        names = {tuple(each) for each in self.models}
        sizes = {len(v) for each in self.models for columns in each.values() for v in columns.values()}
        if len(names) != 1 or len(sizes) != 1 or min(sizes) < 4:
            raise UsageError(
                "the same networks for every seed, measured on the same 4 images or more",
                got=f"{len(self.models)} seeds, {len(names)} sets of networks, {sorted(sizes)} images",
                suggestion="one evaluation set for all of them",
            )

    @property
    def seeds(self) -> int:
        """Trainings of each network."""
        return len(self.models)

    def estimates(self, statistic: Statistic) -> list[Estimate]:
        """Each number of a statistic, with its error from images and trainings.

        Raises:
            Undecidable: a network or a column is missing, or the statistic raises it.

        Source: F. R. Hampel, The influence curve, 1974, for the images; G. K. Smyth, Linear models and
        empirical Bayes methods, 2004, for the pooled variance of trainings; B. L. Welch, 1947, for the sum.
        """
        folds = [[self._fold(statistic, seed, half) for half in HALVES] for seed in range(self.seeds)]
        values = torch.stack([torch.stack([half.values for half in each]).mean(0) for each in folds])
        images = torch.zeros(values.shape[1], dtype=torch.float64)
        for half in HALVES:  # the images are shared by the seeds, so seeds are averaged first
            influence = torch.stack([each[half].influence for each in folds]).mean(0)  # (n, parts)
            images += influence.var(0) / len(influence) / len(HALVES) ** 2
        pulls = torch.stack([torch.stack([half.pull for half in each]).mean(0) for each in folds])
        trainings, freedom = _of_trainings(values, pulls.square().sum(2).mean(0))
        error, n = images + trainings, sum(len(half) for half in self._halves)
        welch = error.square() / (trainings.square() / freedom + images.square() / (n - 1))
        return [
            Estimate(float(value), float(square) ** 0.5, float(nu))
            for value, square, nu in zip(values.mean(0), error, welch.nan_to_num(n - 1.0), strict=True)
        ]

    def _fold(self, statistic: Statistic, seed: int, half: int) -> "_Fold":
        means, deviations = self._summaries[seed][half]
        leaf = means.clone().requires_grad_()
        others = [each for each in range(self.seeds) if each % 2 != seed % 2] or [seed]
        elsewhere = torch.stack([self._summaries[each][1 - half][0] for each in others]).mean(0)
        judged = self._seen(leaf)
        found = statistic(judged, self._seen(elsewhere))
        parts = found.reshape(-1) if isinstance(found, Tensor) else torch.stack(list(found))
        by_mean, pull = zip(*(self._derivatives(part, leaf, judged) for part in parts), strict=True)
        influence = deviations @ torch.stack(by_mean).flatten(1).T
        return _Fold(parts.detach(), influence, torch.stack(pull))

    def _derivatives(self, part: Tensor, leaf: Tensor, judged: Means) -> tuple[Tensor, Tensor]:
        """By the column means, and by the shift of each quantity of each network times its spread."""
        inputs = [leaf, *judged.shifts.values()]
        by_mean, *by_shift = torch.autograd.grad(
            part, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        spread = {
            name: self.quantities[name].spread * by for name, by in zip(judged.shifts, by_shift, strict=True)
        }
        zero = torch.zeros(len(judged.names), dtype=torch.float64)
        pull = torch.cat([spread.get(name, zero) for name in self.quantities])
        return torch.where(leaf.isnan(), 0.0, by_mean), pull

    def _seen(self, table: Tensor) -> Means:
        return Means(tuple(self.models[0]), self.ranked, self._places, self.quantities, table)

    @cached_property
    def _places(self) -> dict[str, int]:
        """Where each column stands that a quantity reads and some network has."""
        read = {name for quantity in self.quantities.values() for name in quantity.reads()}
        has = {name for columns in self.models[0].values() for name in columns}
        return {name: place for place, name in enumerate(sorted(read & has))}

    @cached_property
    def _halves(self) -> tuple[Tensor, ...]:
        n = len(next(iter(next(iter(self.models[0].values())).values())))
        return torch.randperm(n, generator=generator(self.seed, "halves of the images")).chunk(2)

    @cached_property
    def _summaries(self) -> list[list[tuple[Tensor, Tensor]]]:
        """For each seed and half, column means (networks, columns) and the images' deviations from them."""
        return [[_summary(table[half]) for half in self._halves] for table in map(self._table, self.models)]

    def _table(self, models: Mapping[str, Columns]) -> Tensor:  # (n, networks, columns)
        n = sum(len(half) for half in self._halves)
        nothing = torch.full((n,), math.nan, dtype=torch.float64)
        rows = [[c.get(name, nothing).double().cpu() for name in self._places] for c in models.values()]
        return torch.stack([torch.stack(row, 1) for row in rows], 1)


@dataclass(frozen=True)
class _Fold:
    """A statistic of one seed and half: values, influence of each image, change under the assumed spread."""

    values: Tensor  # (parts,)
    influence: Tensor  # (n, parts)
    pull: Tensor  # (parts, quantities · networks)


def _summary(table: Tensor) -> tuple[Tensor, Tensor]:
    there, means = ~table.isnan(), table.nanmean(0)
    share = there.double().mean(0).clamp_min(1e-300)
    return means, (torch.where(there, table - means, 0.0) / share).flatten(1)


def _of_trainings(values: Tensor, assumed: Tensor) -> tuple[Tensor, int]:
    """The variance of the mean over seeds, and its degrees of freedom.

    The variance among the seeds is pooled with the assumed one, and never taken to be less than itself.
    """
    seeds = len(values)
    freedom = ASSUMED + seeds - 1
    if seeds == 1:
        return assumed, freedom
    seen = values.var(0)
    pooled = (ASSUMED * assumed + (seeds - 1) * seen) / freedom
    return torch.maximum(pooled, seen) / seeds, freedom
