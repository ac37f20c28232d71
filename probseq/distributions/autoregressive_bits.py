"""The law of a vector of bits each of which depends on those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, Self

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.bit_levels import nade_log_prob
from probseq.distributions.categorical import Bits
from probseq.errors import UnsupportedError

__all__ = ["AutoregressiveBits"]

_MOST_UNSEEN = 10
_MOST_ENUMERATED = 8
_MARGIN_DRAWS = 128
_CHUNK = 1 << 19


class AutoregressiveBits(Distribution):
    r"""p(x) = prod_i Bernoulli(x_i; sigmoid(b_i + V_i . sigmoid(c + sum_{j < i} W_j x_j))).

    The density is exact. So are the marginal probabilities of the single bits up to 8 variables; of more they are
    averages of p(x_i = 1 | x_<i) over 128 draws, always the same ones (``margins`` says so). Bits that were not seen
    are summed out exactly as long as at most 10 of them come before the last bit that was seen.

    Parameters
    ----------
    bias : b, (*B, k)
    hidden_bias : c, (*B, h)
    encoder : W, (m, h, k)
        A few matrices that many elements of the batch share.
    decoder : V, (m, k, h)
    which : (*B) int64
        Whose matrices each element of the batch has; None where there is one pair, m = 1.
    """

    _event_dims: ClassVar[dict[str, int]] = {"bias": 1, "hidden_bias": 1, "which": 0}
    discrete: ClassVar[bool] = True
    bias: Tensor
    hidden_bias: Tensor
    which: Tensor

    def __init__(
        self, bias: Tensor, hidden_bias: Tensor, encoder: Tensor, decoder: Tensor, which: Tensor | None = None
    ) -> None:
        place = torch.zeros((), dtype=torch.long, device=bias.device) if which is None else which
        self.encoder, self.decoder = encoder, decoder
        self._found: Bits | None = None
        super().__init__(bias=bias, hidden_bias=hidden_bias, which=place)

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> Self:
        # The matrices stay as few as they are: moved along with the batch they would be copied to every element.
        moved = {name: move(getattr(self, name), dims) for name, dims in self._event_dims.items()}
        return type(self)(encoder=self.encoder, decoder=self.decoder, **moved)

    @property
    def margins(self) -> str | None:  # type: ignore[override]
        return f"margins from {self.margin_draws} draws" if self.margin_draws else None

    @property
    def margin_draws(self) -> int:
        """Over how many draws the margins are averages; 0 where they are exact."""
        return 0 if self.n_variables <= _MOST_ENUMERATED else _MARGIN_DRAWS

    def chances(self, generator: torch.Generator | None = None) -> Tensor:
        """P(x_i = 1 | x_<i) along one draw of each of rows, (r, k)."""
        return self._drawn(1, generator)[1][0]

    def marginal(self, index: list[int]) -> Distribution:
        """The first variables in their order, all, or a single one; others have no law of this kind."""
        if index == list(range(len(index))):
            k = len(index)
            return type(self)(
                self.bias[..., :k], self.hidden_bias, self.encoder[:, :, :k], self.decoder[:, :k], self.which
            )
        if len(index) == 1:
            return self.bits.marginal(index)
        raise UnsupportedError(
            got=f"the joint law of the variables {index} of {self.n_variables} bits that depend on those before them",
            expected="one variable, or the first ones in their order",
            remedy="Choose one variable, or use paths: forecast(horizon), or sample(1000) of the law.",
        )

    # joint law -------------------------------------------------------------------------------------------------------

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1], seen.shape[:-1])
        k = self.n_variables
        x, mask = value.to(self.dtype).expand(*shape, k).reshape(-1, k), seen.expand(*shape, k).reshape(-1, k)
        rows = self._rows(shape)
        if bool(mask.all()):
            return rows.log_prob(x).reshape(shape)
        whole = mask.all(-1)
        total = torch.zeros(len(x), dtype=self.dtype, device=x.device)
        chosen = whole.nonzero().squeeze(-1)
        if len(chosen):
            total = total.index_put((chosen,), rows[chosen].log_prob(x[chosen]))
        for chosen, pattern in _patterns(mask, mask.any(-1) & ~whole):
            total = total.index_put((chosen,), rows[chosen]._summed_out(x[chosen], pattern))
        return total.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        k, rows = self.n_variables, self._rows(shape)
        x = value.to(self.dtype).expand(*shape, k).reshape(-1, k)
        if len(self.encoder) == 1:
            found = nade_log_prob(x, rows.bias, rows.hidden_bias, self.encoder[0], self.decoder[0])
        else:
            found = torch.zeros(len(x), dtype=self.dtype, device=x.device)
            for m in torch.unique(rows.which).tolist():
                own = (rows.which == m).nonzero().squeeze(-1)
                part = nade_log_prob(x[own], rows.bias[own], rows.hidden_bias[own], self.encoder[m], self.decoder[m])
                found = found.index_put((own,), part)
        possible = ((x == 0) | (x == 1)).all(-1)
        return torch.where(possible, found, torch.full_like(found, -torch.inf)).reshape(shape)

    def _rows(self, shape: tuple[int, ...]) -> Self:
        return self if len(shape) == 1 and self.batch_shape == shape else self.expand(shape).reshape(-1)

    def _summed_out(self, x: Tensor, pattern: Tensor) -> Tensor:
        """log p(x_seen) of rows (r, k) with the same bits seen, by all values of the others."""
        # Bits behind the last one that was seen sum to one by themselves.
        end = int(pattern.nonzero().max()) + 1
        open_bits = (~pattern[:end]).nonzero().squeeze(-1)
        if len(open_bits) > _MOST_UNSEEN:
            raise UnsupportedError(
                got=f"{len(open_bits)} missing bits before one that was seen, in a vector of {self.n_variables}",
                expected=f"at most {_MOST_UNSEEN}, whose values can be enumerated, or all bits missing",
                remedy="Mark all bits of such a step as missing, or use Bernoulli, whose bits are independent.",
            )
        codes = torch.arange(2 ** len(open_bits), device=x.device)
        values = (codes.unsqueeze(-1) >> torch.arange(len(open_bits), device=x.device)) & 1
        every = x[:, :end].unsqueeze(0).repeat(len(codes), 1, 1)
        every[..., open_bits] = values.to(x.dtype).unsqueeze(1)
        return torch.logsumexp(self.marginal(list(range(end))).log_prob(every), 0)

    # single bits -----------------------------------------------------------------------------------------------------

    @property
    def bits(self) -> Bits:
        """The bits as if they were independent, each with its marginal probability."""
        if self._found is None:
            shape = tuple(self.batch_shape)
            rows = self._rows(shape)
            exact = self.n_variables <= _MOST_ENUMERATED
            width = self.hidden_bias.shape[-1] * (2**self.n_variables if exact else _MARGIN_DRAWS)
            step = max(1, _CHUNK // width)
            generator = torch.Generator(self.bias.device).manual_seed(0)
            with torch.no_grad():
                parts = [
                    part._enumerated() if exact else part._drawn(_MARGIN_DRAWS, generator)[1].mean(0)
                    for part in (rows[i : i + step] for i in range(0, len(rows.bias), step))
                ]
            p = torch.cat(parts) if parts else self.bias.detach().reshape(-1, self.n_variables)
            self._found = Bits(logit=torch.logit(p, eps=torch.finfo(p.dtype).eps).reshape(*shape, self.n_variables))
        return self._found

    def _enumerated(self) -> Tensor:
        """P(x_i = 1) of rows, (r, k), by all values of the bits before."""
        weight, activity = torch.ones_like(self.bias[:, :1]), self.hidden_bias.unsqueeze(1)
        encoder, decoder = self.encoder[self.which], self.decoder[self.which]
        found = []
        for i in range(self.n_variables):
            score = (torch.sigmoid(activity) @ decoder[:, i].unsqueeze(-1)).squeeze(-1)
            p = torch.sigmoid(self.bias[:, i : i + 1] + score)
            found.append((weight * p).sum(-1))
            weight = torch.cat([weight * (1.0 - p), weight * p], 1)
            activity = torch.cat([activity, activity + encoder[:, :, i].unsqueeze(1)], 1)
        return torch.stack(found, -1)

    @property
    def mean(self) -> Tensor:
        return self.bits.mean

    @property
    def variance(self) -> Tensor:
        return self.bits.variance

    def cdf(self, value: Tensor) -> Tensor:
        return self.bits.cdf(value)

    def icdf(self, q: Tensor) -> Tensor:
        return self.bits.icdf(q)

    # draws -----------------------------------------------------------------------------------------------------------

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        with torch.no_grad():
            x, _ = self._rows(tuple(self.batch_shape))._drawn(torch.Size(sample_shape).numel(), generator)
        return x.reshape(*sample_shape, *self.batch_shape, self.n_variables)

    def _drawn(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Draws (n, r, k) of rows, bit after bit, and P(x_i = 1 | x_<i) on their way."""
        r, k = self.bias.shape
        u = torch.rand((n, r, k), generator=generator, dtype=self.dtype, device=self.bias.device)
        if not u.numel():
            return u, u
        used, group = torch.unique(self.which, return_inverse=True)
        rows, place = _side_by_side(group, len(used))
        g, s = rows.shape
        encoder, decoder = self.encoder[used], self.decoder[used]
        # Bits outermost, then the groups: each step works on whole blocks, one product of matrices for all groups.
        noise = u[:, rows].permute(3, 1, 0, 2).reshape(k, g, n * s)
        bias = self.bias[rows].permute(2, 0, 1).unsqueeze(2).expand(k, g, n, s).reshape(k, g, n * s)
        activity = self.hidden_bias[rows].unsqueeze(1).expand(g, n, s, -1).reshape(g * n * s, -1).contiguous()
        vector = torch.sigmoid(activity)
        x, p = torch.empty_like(noise), torch.empty_like(noise)
        for i in range(k):
            score = torch.bmm(vector.view(g, n * s, -1), decoder[:, i].unsqueeze(-1)).squeeze(-1)
            p[i] = torch.sigmoid(bias[i] + score)
            bit = noise[i] < p[i]
            x[i] = bit.to(x.dtype)
            moved = bit.flatten().nonzero().squeeze(-1)
            if len(moved):
                new = activity[moved] + encoder[moved // (n * s), :, i]
                activity[moved], vector[moved] = new, torch.sigmoid(new)
        by_row = [each.view(k, g, n, s).permute(2, 1, 3, 0).reshape(n, g * s, k)[:, place] for each in (x, p)]
        return by_row[0], by_row[1]


def _side_by_side(group: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Rows (g, s) of each group, short groups filled up with row 0, and where each row stands in it, flat (r,)."""
    r = len(group)
    if n_groups == 1:
        every = torch.arange(r, device=group.device)
        return every.unsqueeze(0), every
    order = torch.argsort(group, stable=True)
    count = torch.bincount(group, minlength=n_groups)
    width = int(count.max())
    slot = torch.arange(r, device=group.device) - (count.cumsum(0) - count)[group[order]]
    place = torch.empty_like(order)
    place[order] = group[order] * width + slot
    rows = torch.zeros(n_groups * width, dtype=torch.long, device=group.device)
    rows[place] = torch.arange(r, device=group.device)
    return rows.reshape(n_groups, width), place


def _patterns(mask: Tensor, among: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of a mask (r, k) that are alike, and what they have in common."""
    rows = among.nonzero().squeeze(-1)
    if not len(rows):
        return
    patterns, which = torch.unique(mask[rows], dim=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        yield rows[which == index], pattern
