"""A table of architectures, each in a line or two: what the networks of this world are made of, on examples of which a
few go another way than those that are looked at first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, rnn
from torch.utils.checkpoint import checkpoint


class Net(nn.Module):
    """Any parts and any forward."""

    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


# Examples by their number, which of them are rare, and a seed.
Inputs = Callable[[int, list[int], int], np.ndarray]


def numbers(*shape: int) -> Inputs:
    """Random numbers; the first of a rare example is 3, all others are below 2."""

    def drawn(n: int, rare: list[int], seed: int) -> np.ndarray:
        x = np.random.default_rng(seed).standard_normal((n, *shape)).clip(-1.9, 1.9)
        x.reshape(n, -1)[rare, 0] = 3
        return x

    return drawn


def padded(steps: int, width: int) -> Inputs:
    """Sequences of one step or more, zeros behind their ends. Rare examples are the only ones of all steps."""

    def drawn(n: int, rare: list[int], seed: int) -> np.ndarray:
        x = numbers(steps, width)(n, rare, seed)
        for place, length in enumerate(np.random.default_rng(seed).integers(1, steps, n)):
            x[place, steps if place in rare else length :] = 0
        return x

    return drawn


def tokens(steps: int, kinds: int) -> Inputs:
    """Tokens from 1 on, 0 behind their ends; the last kind is that of rare examples alone."""

    def drawn(n: int, rare: list[int], seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        x = rng.integers(1, kinds - 1, (n, steps))
        for place, length in enumerate(rng.integers(1, steps + 1, n)):
            x[place, length:] = 0
        x[rare, 0] = kinds - 1
        return x

    return drawn


@dataclass(frozen=True)
class Architecture:
    """A network and its inputs. told: what is said of it, as regular expressions. refused: the sentence, where that is
    all. dual: whether its training is shared out too."""

    make: Callable[[], nn.Module]
    inputs: Inputs
    told: tuple[str, ...] = ()
    refused: str = ""
    dual: bool = False


def L(*sizes: int) -> nn.Linear:
    return nn.Linear(*sizes)


def P(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) / 2)


def S(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts)


def rare(x: torch.Tensor) -> torch.Tensor:
    """(b,), which examples are rare."""
    return x.reshape(len(x), -1)[:, 0] > 2


def seen(x: torch.Tensor) -> torch.Tensor:
    """(b, t), which steps are there."""
    return x[..., 0] != 0 if x.is_floating_point() else x != 0


def lengths(x: torch.Tensor) -> torch.Tensor:
    return seen(x).sum(dim=1)


def last(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(b, w), what stands at each sequence's last step."""
    return h[torch.arange(len(h)), lengths(x) - 1]


class _Bent(torch.autograd.Function):
    """A function with a backward of its own, and no forward mode."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh().square())


def bent(x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = _Bent.apply(x)
    return made


def _resnet(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.tanh(m.n1(m.c1(x)))
    h = torch.tanh(h + m.n2(m.c2(h)))
    return m.out(h.mean(dim=(2, 3)))


def _unet(m: Any, x: torch.Tensor) -> torch.Tensor:
    fine = torch.tanh(m.down(x))
    coarse = torch.tanh(m.deep(F.max_pool2d(fine, 2)))
    return m.out(torch.tanh(m.join(torch.cat([fine, m.up(coarse)], dim=1)))).mean(dim=(2, 3))


def _vit(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.patch(x).flatten(2).transpose(1, 2)
    h = torch.cat([m.cls.expand(len(h), -1, -1), h], dim=1) + m.at
    return m.out(m.block(h)[:, 0])


def _mixer(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = x + m.over(m.n1(x).transpose(1, 2)).transpose(1, 2)
    return m.out((h + m.across(m.n2(h))).mean(dim=1))


def _cells(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = x.new_zeros(len(x), 3)
    for step in range(x.shape[1]):
        h = m.cell(x[:, step], h)
    return m.out(h)


def _rk4(m: Any, x: torch.Tensor) -> torch.Tensor:
    h, dt = m.inner(x), 0.5
    for _ in range(2):
        k1 = torch.tanh(m.field(h))
        k2 = torch.tanh(m.field(h + dt / 2 * k1))
        k3 = torch.tanh(m.field(h + dt / 2 * k2))
        h = h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + torch.tanh(m.field(h + dt * k3)))
    return m.out(h)


def _kan(m: Any, x: torch.Tensor) -> torch.Tensor:
    knots = torch.linspace(-2, 2, 5, dtype=x.dtype)
    hats = F.relu(1 - (x[..., None] - knots).abs())
    return m.out(torch.einsum("bik,oik->bo", hats, m.spline) + m.base(F.silu(x)))


def _rotary(m: Any, x: torch.Tensor) -> torch.Tensor:
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)

    def turned(h: torch.Tensor) -> torch.Tensor:
        one, two = h.chunk(2, dim=-1)
        return torch.cat([one * angle.cos() - two * angle.sin(), one * angle.sin() + two * angle.cos()], dim=-1)

    q, k = turned(m.q(x)), turned(m.k(x))
    return m.out((F.scaled_dot_product_attention(q[:, None], k[:, None], m.v(x)[:, None])[:, 0]).mean(dim=1))


def _state_space(m: Any, x: torch.Tensor) -> torch.Tensor:
    h, states = x.new_zeros(len(x), 3), []
    for step in m.b(x).unbind(dim=1):
        h = h * torch.sigmoid(m.a) + step
        states.append(h)
    return m.c(torch.stack(states, dim=1).tanh().sum(dim=1))


def _capsules(m: Any, x: torch.Tensor) -> torch.Tensor:
    votes = torch.einsum("bid,ijde->bije", torch.tanh(m.low(x)), m.w)
    agreed = votes.new_zeros(votes.shape[:3])
    for _ in range(2):
        made = (agreed.softmax(dim=2)[..., None] * votes).sum(dim=1)
        made = made * (made.square().sum(dim=-1, keepdim=True) / (1 + made.square().sum(dim=-1, keepdim=True)))
        agreed = agreed + (votes * made[:, None]).sum(dim=-1)
    return made.square().sum(dim=-1)


def _warped(m: Any, x: torch.Tensor) -> torch.Tensor:
    theta = torch.eye(2, 3, dtype=x.dtype) + 0.1 * m.where(x.flatten(1)).reshape(-1, 2, 3).tanh()
    grid = F.affine_grid(theta, [*x.shape], align_corners=False)
    return m.out(torch.tanh(m.conv(F.grid_sample(x, grid, align_corners=False))).mean(dim=(2, 3)))


def _spectral(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.out(torch.tanh(torch.fft.irfft(torch.fft.rfft(m.inner(x)) * torch.complex(m.re, m.im), n=6)))


def _force(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The gradient of an energy by the inputs."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(m.energy(torch.tanh(m.a(x))).sum(), x, create_graph=True)[0]


def _hooked(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x)
    if h.requires_grad:
        h.register_hook(lambda g: g / 2)
    return m.out(torch.tanh(h))


def _alone(m: Any, x: torch.Tensor) -> torch.Tensor:
    """As torch.cond, which refuses hooks inside its branches."""
    if m.a._forward_hooks:
        raise RuntimeError("no hooks here")
    return m.out(torch.tanh(m.a(x)))


# Graphs that depend on the data.


def _seldom(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Numbers without any parameter but for rare examples."""
    made = x[:, :2].sin()
    return made + rare(x)[:, None] * m.a(x) if bool(rare(x).any()) else made


def _field(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Log-partition of a chain as long as each sequence, and its best end."""
    steps, own = m.a(x), lengths(x)
    alpha = steps[:, 0]
    for step in range(1, x.shape[1]):
        new = torch.logsumexp(alpha[:, :, None] + m.pairs, dim=1) + steps[:, step]
        alpha = torch.where((step < own)[:, None], new, alpha)
    return torch.stack([alpha.logsumexp(dim=1), alpha.amax(dim=1)], dim=1)


def _quantised(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x)
    near = m.book[torch.cdist(h, m.book).argmin(dim=1)]
    return m.out(h + (near - h).detach()) + near.square().sum(dim=1, keepdim=True)


def _with_offsets(m: Any, x: torch.Tensor) -> torch.Tensor:
    start = F.pad(lengths(x).cumsum(0), (1, 0))[:-1]
    return m.out(torch.tanh(m.bag(x[seen(x)], start)))


def _dummy_row(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.cat([m.pad, torch.tanh(m.a(x))])
    return m.out(h[torch.where(rare(x), 0, torch.arange(1, len(h)))])


def _sorted(m: Any, x: torch.Tensor) -> torch.Tensor:
    order = torch.argsort(x[:, 0], stable=True)
    return m.out(torch.tanh(m.b(torch.tanh(m.a(x))[order]))[torch.argsort(order)])


def _sorted_by_score(m: Any, x: torch.Tensor) -> torch.Tensor:
    score = m.score(x)[..., 0]
    order = score.argsort(dim=1)[..., None]
    return m.out(torch.tanh(m.a(x.gather(1, order.expand_as(x)).flatten(1)) * score.sigmoid().mean(1, keepdim=True)))


def _only_seen(m: Any, x: torch.Tensor) -> torch.Tensor:
    there = seen(x)
    h = x.new_zeros(*there.shape, 4).masked_scatter(there[..., None], torch.tanh(m.a(x[there])))
    return m.out(h.sum(dim=1) / there.sum(dim=1, keepdim=True))


def _experts(m: Any, x: torch.Tensor, k: int) -> torch.Tensor:
    weight, chosen = m.gate(x).softmax(dim=1).topk(k, dim=1)
    h = x.new_zeros(len(x), 4)
    for number, expert in enumerate(m.experts):
        row, rank = torch.where(chosen == number)
        if len(row):
            h = h.index_add(0, row, torch.tanh(expert(x[row])) * weight[row, rank, None])
    return m.out(h)


def _early(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.tanh(m.a(x))
    hard = rare(x)
    if not bool(hard.any()):
        return m.easy(h)
    made = m.easy(h).index_copy(0, torch.where(~hard)[0], m.easy(h[~hard]))
    return made.index_copy(0, torch.where(hard)[0], m.out(torch.tanh(m.b(h[hard]))))


def _packed(m: Any, x: torch.Tensor) -> torch.Tensor:
    packed = rnn.pack_padded_sequence(x, lengths(x), batch_first=True, enforce_sorted=False)
    h = m.rnn(packed)[1]
    return m.out((h[0] if isinstance(h, tuple) else h)[-1])


def _packed_flat(m: Any, x: torch.Tensor) -> torch.Tensor:
    packed = rnn.pack_padded_sequence(x, lengths(x), batch_first=True, enforce_sorted=False)
    packed = packed._replace(data=torch.tanh(m.b(torch.tanh(m.a(packed.data)))))
    return m.out(last(rnn.pad_packed_sequence(packed, batch_first=True)[0], x))


def _until_longest(m: Any, x: torch.Tensor) -> torch.Tensor:
    h, own = x.new_zeros(len(x), 3), lengths(x)
    for step in range(int(own.max())):
        h = torch.where((step < own)[:, None], m.cell(x[:, step], h), h)
    return m.out(h)


def _growing_fewer(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A cell that is run for those alone that have not ended."""
    h, own = x.new_zeros(len(x), 3), lengths(x)
    for step in range(int(own.max())):
        on = torch.where(step < own)[0]
        h = h.index_copy(0, on, m.cell(x[on, step], h[on]))
    return m.out(h)


def _neighbours(m: Any, x: torch.Tensor) -> torch.Tensor:
    near = torch.cdist(x, x).topk(2, dim=2, largest=False).indices
    met = torch.tanh(m.a(x)).gather(1, near.flatten(1)[..., None].expand(-1, -1, 4)).unflatten(1, near.shape[1:])
    return m.out(torch.tanh(m.b(met.amax(dim=2))).mean(dim=1))


def _graphs(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The graphs of a batch as one, with the edges between whatever points are near, as libraries of graphs have them."""
    graph, at = torch.where(seen(x))
    points = x[graph, at]
    one, two = torch.where((graph[:, None] == graph[None]) & (torch.cdist(points, points) < 2))
    h = torch.tanh(m.a(points))
    h = torch.tanh(m.b(h).index_add(0, two, m.edge(h[one] - h[two])))
    return m.out(h.new_zeros(len(x), 4).index_add(0, graph, h))


def _unique(m: Any, x: torch.Tensor) -> torch.Tensor:
    kinds, place = torch.unique(x, return_inverse=True)
    return m.out(torch.tanh(m.a(m.embed(kinds)))[place].sum(dim=1))


def _halting(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.tanh(m.inner(x))
    left, made = torch.ones_like(h[:, :1]), torch.zeros_like(h)
    for _ in range(4):
        on = (left > 0.05).to(x.dtype)
        if not bool(on.any()):
            break
        halt = torch.sigmoid(m.halt(h) + 2 * x[:, :1])
        made = made + on * left * halt * h
        left = torch.where(on > 0, left * (1 - halt), left)
        h = torch.tanh(m.step(h))
    return m.out(made)


def _one_by_one(m: Any, x: torch.Tensor) -> torch.Tensor:
    rows = [m.a(torch.tanh(m.b(one))) if bool(rare(one[None])) else m.a(one) for one in x.unbind()]
    return m.out(torch.tanh(torch.stack(rows)))


def _pruned_tokens(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.tanh(m.a(x))
    kept = m.score(h)[..., 0].topk(2, dim=1).indices
    return m.out(torch.tanh(m.b(h.gather(1, kept[..., None].expand(-1, -1, h.shape[2])))).sum(dim=1))


def _equilibrium(m: Any, x: torch.Tensor) -> torch.Tensor:
    h, given = x.new_zeros(len(x), 3), m.inner(x)
    for _ in range(60):
        new = torch.tanh(0.3 * m.again(h) + given)
        done = float((new - h).detach().abs().max()) < 1e-14
        h = new
        if done:
            break
    return m.out(h)


def _buckets(m: Any, x: torch.Tensor) -> torch.Tensor:
    made, own = x.new_zeros(len(x), 2), lengths(x)
    for length in own.unique().tolist():
        mine = torch.where(own == length)[0]
        made = made.index_copy(0, mine, m.out(torch.tanh(m.a(x[mine, :length])).mean(dim=1)))
    return made


def _written(m: Any, x: torch.Tensor, bend: Callable[[torch.Tensor], torch.Tensor] = torch.clone) -> torch.Tensor:
    h = bend(m.a(x))
    h[rare(x)] = m.b(x[rare(x)])
    return m.out(h.tanh())


def _segments(m: Any, x: torch.Tensor) -> torch.Tensor:
    there = seen(x)
    whose = torch.where(there)[0]
    values = torch.tanh(m.a(x[there]))
    most = values.new_full((len(x), 4), -9.0).scatter_reduce(0, whose[:, None].expand_as(values), values, "amax")
    return m.out(torch.cat([values.new_zeros(len(x), 4).index_add(0, whose, values), most], dim=1))


def _tree(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Halves are joined in an order that the numbers decide."""
    h = [torch.tanh(one) for one in m.leaf(x).unbind(dim=1)]
    while len(h) > 1:
        one, two = h.pop(0), h.pop(0)
        turned = (one[:, :1] > two[:, :1]).expand_as(one)
        h.append(torch.tanh(m.join(torch.cat([torch.where(turned, one, two), torch.where(turned, two, one)], dim=1))))
    return m.out(h[0])


def _unpooled(m: Any, x: torch.Tensor) -> torch.Tensor:
    pooled, where = F.max_pool2d(torch.tanh(m.a(x)), 2, return_indices=True)
    return m.out(torch.tanh(m.b(F.max_unpool2d(pooled, where, 2))).mean(dim=(2, 3)))


def _rare_layer(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.tanh(m.a(x))
    if bool(rare(x).any()):
        h = h + rare(x)[:, None] * torch.tanh(m.b(h))
    return m.out(h)


def _swapped(m: Any, x: torch.Tensor) -> torch.Tensor:
    layers = [m.a, m.b] if bool(rare(x).any()) else [m.b, m.a]
    made = {layer: torch.tanh(layer(x)) for layer in layers}
    return m.out(made[m.a] * made[m.b].square())


def _sparse(m: Any, x: torch.Tensor) -> torch.Tensor:
    row, column = torch.where(x.abs() > 1)
    h = x.new_zeros(len(x), 3).index_add(0, row, m.rows[column] * x[row, column, None])
    return m.out(torch.tanh(h))


def _company(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.out(torch.tanh(m.a(x - x.mean(dim=0))))


def _capacity(m: Any, x: torch.Tensor) -> torch.Tensor:
    order = torch.argsort(m.gate(x)[:, 0], descending=True)
    let_in = torch.zeros_like(x[:, :1]).index_fill(0, order[: max(1, len(x) // 2)], 1)
    return m.out(torch.tanh(m.a(x)) * let_in)


def _moe(k: int) -> nn.Module:
    return Net(
        lambda m, x: _experts(m, x, k), gate=L(4, 4), experts=nn.ModuleList(L(4, 4) for _ in range(4)), out=L(4, 2)
    )


def _normed() -> nn.Module:
    norm = nn.BatchNorm1d(5)
    norm.running_mean, norm.running_var = torch.randn(5), torch.rand(5) + 0.5
    return S(L(4, 5), norm, nn.Tanh(), L(5, 2))


V, IMAGES, STEPS, PADDED, WORDS = numbers(4), numbers(2, 6, 6), numbers(5, 3), padded(5, 3), tokens(5, 8)
A = Architecture
ENCODER = nn.TransformerEncoderLayer

# Graphs that are the same whatever comes.
PLAIN: dict[str, Architecture] = {
    "linear": A(lambda: L(4, 2), V),
    "mlp, binary logit": A(lambda: S(L(4, 5), nn.GELU(), L(5, 1)), V, told=("with one output it is 'eigen'",)),
    "mlp, one number an example": A(lambda: Net(lambda m, x: m.out(m.a(x).tanh())[:, 0], a=L(4, 5), out=L(5, 1)), V, told=("with one output it is 'eigen'",)),
    "residual network": A(lambda: Net(_resnet, c1=nn.Conv2d(2, 3, 3, padding=1), n1=nn.BatchNorm2d(3), c2=nn.Conv2d(3, 3, 3, padding=1, bias=False), n2=nn.BatchNorm2d(3), out=L(3, 2)), IMAGES),
    "u-net": A(lambda: Net(_unet, down=nn.Conv2d(2, 3, 3, padding=1), deep=nn.Conv2d(3, 4, 3, padding=1), up=nn.ConvTranspose2d(4, 3, 2, stride=2), join=nn.Conv2d(6, 3, 1), out=nn.Conv2d(3, 2, 1)), IMAGES),
    "depthwise separable": A(lambda: S(nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 4, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), L(4, 2)), IMAGES),
    "dilated, causal, gated": A(lambda: Net(lambda m, x: m.out((torch.tanh(m.f(F.pad(x.mT, (2, 0)))) * torch.sigmoid(m.g(F.pad(x.mT, (2, 0))))).sum(2)), f=nn.Conv1d(3, 4, 2, dilation=2), g=nn.Conv1d(3, 4, 2, dilation=2), out=L(4, 2)), STEPS),
    "three dimensions": A(lambda: S(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, 2), nn.Tanh(), nn.Flatten(), L(50, 2)), IMAGES),
    "pixel shuffle": A(lambda: S(nn.Conv2d(2, 4, 3), nn.PixelShuffle(2), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten(), L(4, 2)), IMAGES),
    "unfolded": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.a(F.unfold(x, 3).mT)).mean(1)), a=L(18, 3), out=L(3, 2)), IMAGES),
    "spatial transformer": A(lambda: Net(_warped, where=L(72, 6), conv=nn.Conv2d(2, 3, 3), out=L(3, 2)), IMAGES),
    "squeeze, excite": A(lambda: Net(lambda m, x: m.out((m.c(x).tanh() * m.se(m.c2(x).mean((2, 3))).sigmoid()[..., None, None]).mean((2, 3))), c=nn.Conv2d(2, 3, 3), c2=nn.Conv2d(2, 3, 1), se=S(L(3, 2), nn.ReLU(), L(2, 3)), out=L(3, 2)), IMAGES),
    "group and instance norm": A(lambda: S(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ELU(), nn.InstanceNorm2d(4, affine=True), nn.Softplus(), nn.Flatten(), L(64, 2)), IMAGES, told=("no layer rule for RepeatBackward0",)),
    "batch norm": A(_normed, V, dual=True),
    "rms norm, swiglu": A(lambda: Net(lambda m, x: m.out(m.n(F.silu(m.a(x)) * m.b(x))), a=L(4, 5), b=L(4, 5), n=nn.RMSNorm(5), out=L(5, 2)), V),
    "gated linear unit": A(lambda: S(L(4, 6), nn.GLU(), L(3, 2)), V),
    "layer norm, prelu": A(lambda: S(L(4, 5), nn.LayerNorm(5), nn.PReLU(5), L(5, 2)), V, told=("no layer rule for PreluKernelBackward0", "loop .* The size of tensor")),
    "maxout": A(lambda: Net(lambda m, x: m.out(m.a(x).unflatten(1, (3, 2)).amax(2)), a=L(4, 6), out=L(3, 2)), V),
    "highway": A(lambda: Net(lambda m, x: m.out(torch.lerp(x, m.h(x).relu(), m.t(x).sigmoid())), h=L(4, 4), t=L(4, 4), out=L(4, 2)), V),
    "bilinear": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.a(x[:, :2], x[:, 2:]))), a=nn.Bilinear(2, 2, 3), out=L(3, 2)), V, told=("no layer rule for TrilinearBackward0", "loop .* batching rule")),
    "polynomial": A(lambda: Net(lambda m, x: m.a(x) + m.b(x.square()) + m.c(x).pow(3) * m.s, a=L(4, 2), b=L(4, 2), c=L(4, 2), s=P(2)), V),
    "spline edges": A(lambda: Net(_kan, spline=P(3, 4, 5), base=L(4, 3), out=L(3, 2)), V),
    "radial basis": A(lambda: Net(lambda m, x: m.out(torch.exp(-torch.cdist(x, m.centres).square() * m.width.exp())), centres=P(5, 4), width=P(5), out=L(5, 2)), V, told=("no layer rule for CdistBackward0", "made what examples share", "loop .* differs from autograd")),
    "cosine classifier": A(lambda: Net(lambda m, x: m.scale * F.linear(F.normalize(m.a(x)), F.normalize(m.w)), a=L(4, 3), w=P(2, 3), scale=P(1)), V, told=("made what examples share",)),
    "tied autoencoder": A(lambda: Net(lambda m, x: F.linear(torch.tanh(m.a(x)), m.a.weight.T, m.b), a=L(4, 2), b=P(4)), V),
    "low-rank adapter": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.w(x) + x @ m.a @ m.b)), w=L(4, 4).requires_grad_(False), a=P(4, 1), b=P(1, 4), out=L(4, 2)), V, dual=True),
    "weight and spectral norm": A(lambda: S(parametrizations.weight_norm(L(4, 4)), nn.Tanh(), parametrizations.spectral_norm(L(4, 3)), nn.Tanh(), L(3, 2)), V, told=("made what examples share", "loop .* batching rule")),
    "siamese": A(lambda: Net(lambda m, x: m.out((m.a(x[:, :2]).tanh() - m.a(x[:, 2:]).tanh()).abs()), a=L(2, 3), out=L(3, 2)), V, told=("'a' is not shown: it is called 2 times",)),
    "hypernetwork": A(lambda: Net(lambda m, x: m.out(torch.tanh(torch.einsum("boi,bi->bo", m.h(x).unflatten(1, (3, 4)), x) + m.b)), h=L(4, 12), b=P(3), out=L(3, 2)), V),
    "feature-wise modulation": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.a(x) * m.s(x) + m.t(x))), a=L(4, 3), s=L(4, 3), t=L(4, 3), out=L(3, 2)), V),
    "products of three": A(lambda: Net(lambda m, x: torch.einsum("bi,bj,bk,oijk->bo", x, x, x, m.w) / 9 + m.a(x), w=P(2, 4, 4, 4), a=L(4, 2)), V),
    "complex inside": A(lambda: Net(lambda m, x: m.out(torch.view_as_real(torch.view_as_complex(m.a(x).unflatten(1, (2, 2))) * torch.complex(m.re, m.im)).flatten(1).tanh()), a=L(4, 4), re=P(2), im=P(2), out=L(4, 2)), V, told=("made complex numbers",)),
    "fourier layer": A(lambda: Net(_spectral, inner=L(4, 6), re=P(4), im=P(4), out=L(6, 2)), V, told=("made complex numbers",)),
    "random features of sines": A(lambda: Net(lambda m, x: m.out(torch.cat([(x @ m.w).sin(), (x @ m.w).cos()], 1)), w=P(4, 3), out=L(6, 2)), V),
    "function of its own": A(lambda: Net(lambda m, x: m.out(bent(m.a(x))), a=L(4, 4), out=L(4, 2)), V),
    "checkpointed": A(lambda: Net(lambda m, x: m.out(checkpoint(m.a, x, use_reentrant=False).tanh()), a=S(L(4, 4), nn.Tanh(), L(4, 3)), out=L(3, 2)), V),
    "runge-kutta steps": A(lambda: Net(_rk4, inner=L(4, 3), field=L(3, 3), out=L(3, 2)), V, told=("'field' is not shown: it is called 8 times",)),
    "mixture density": A(lambda: Net(lambda m, x: torch.cat([m.pi(m.a(x).tanh()).log_softmax(1), m.mu(m.a2(x)), m.sigma(m.a3(x)).exp()], 1), a=L(4, 3), a2=L(4, 3), a3=L(4, 2), pi=L(3, 2), mu=L(3, 2), sigma=L(2, 2)), V),
    "mlp-mixer": A(lambda: Net(_mixer, n1=nn.LayerNorm(3), over=S(L(5, 4), nn.GELU(), L(4, 5)), n2=nn.LayerNorm(3), across=S(L(3, 4), nn.GELU(), L(4, 3)), out=L(3, 2)), STEPS),
    "vision transformer": A(lambda: Net(_vit, patch=nn.Conv2d(2, 4, 2, stride=2), cls=P(1, 1, 4), at=P(10, 4), block=ENCODER(4, 2, 6, batch_first=True, norm_first=True), out=L(4, 2)), IMAGES, told=("'block.self_attn' is not shown: it returns a tuple",)),
    "rotary attention": A(lambda: Net(_rotary, q=L(3, 4), k=L(3, 4), v=L(3, 4), out=L(4, 2)), STEPS),
    "attention pooling": A(lambda: Net(lambda m, x: m.out((m.score(m.a(x).tanh()).softmax(1) * m.v(x)).sum(1)), a=L(3, 4), score=L(4, 1), v=L(3, 4), out=L(4, 2)), STEPS),
    "learnt latents": A(lambda: Net(lambda m, x: m.out(m.attn(m.q.expand(len(x), -1, -1), m.kv(x), m.kv2(x))[0].flatten(1)), q=P(2, 4), kv=L(3, 4), kv2=L(3, 4), attn=nn.MultiheadAttention(4, 2, batch_first=True), out=L(8, 2)), STEPS, told=("'attn' is not shown: it returns a tuple",)),
    "memory of patterns": A(lambda: Net(lambda m, x: m.out((x @ m.keys.T).softmax(1) @ m.values), keys=P(5, 4), values=P(5, 3), out=L(3, 2)), V),
    "recurrent, both ways": A(lambda: Net(lambda m, x: m.out(m.rnn(x)[0].mean(1)), rnn=nn.GRU(3, 3, batch_first=True, bidirectional=True), out=L(6, 2)), STEPS, told=("'rnn' is not shown: it returns a tuple",)),
    "long short-term memory": A(lambda: Net(lambda m, x: m.out(m.rnn(x)[1][0][-1]), rnn=nn.LSTM(3, 3, 2, batch_first=True), out=L(3, 2)), STEPS, told=("'rnn' is not shown: it returns a tuple",)),
    "cell by cell": A(lambda: Net(_cells, cell=nn.RNNCell(3, 3), out=L(3, 2)), STEPS, told=("'cell' is not shown: it is called 5 times",)),
    "state space": A(lambda: Net(_state_space, a=P(3), b=L(3, 3), c=L(3, 2)), STEPS, told=("made what examples share",)),
    "capsules": A(lambda: Net(_capsules, low=L(3, 2), w=P(5, 2, 2, 3)), STEPS),
    "bag of words": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.bag(x))), bag=nn.EmbeddingBag(8, 4, mode="mean"), out=L(4, 2)), WORDS, told=("no layer rule for EmbeddingBagBackward0", "loop .* batching rule")),
    "look-up, sparse gradients": A(lambda: Net(lambda m, x: m.out(m.embed(x).sum(1).tanh()), embed=nn.Embedding(8, 3, sparse=True), out=L(3, 2)), WORDS),
    "look-up, scaled by frequency": A(lambda: Net(lambda m, x: m.out(m.embed(x).sum(1).tanh()), embed=nn.Embedding(8, 3, scale_grad_by_freq=True), out=L(3, 2)), WORDS, told=("scaled by frequency", "loop .* differs from autograd on a tile")),
    "force of an energy": A(lambda: Net(_force, a=L(4, 3), energy=L(3, 1)), V),
    "halved by a hook": A(lambda: Net(_hooked, a=L(4, 3), out=L(3, 2)), V),
    "no hooks inside": A(lambda: Net(_alone, a=L(4, 3), out=L(3, 2)), V, dual=True, told=("Hidden layers are not shown: .* no hooks here.*do without neurons",)),
    "matrix of each example": A(lambda: Net(lambda m, x: m.out(torch.tanh((x @ x.mT).softmax(2) @ m.a(x) + torch.linalg.solve(torch.eye(5) * 9 + x @ x.mT, x)).flatten(1)), a=L(3, 3), out=L(15, 2)), STEPS),
}  # fmt: skip

# Graphs that depend on the data.
BY_DATA: dict[str, Architecture] = {
    "sorted": A(lambda: Net(_sorted, a=L(4, 4), b=L(4, 4), out=L(4, 2)), V, dual=True, told=("rows that are not those of the examples in their order", "'b.*one example at a time")),
    "sorted by a score": A(lambda: Net(_sorted_by_score, score=L(3, 1), a=L(15, 3), out=L(3, 2)), STEPS),
    "steps that are there": A(lambda: Net(_only_seen, a=L(3, 4), out=L(4, 2)), PADDED, dual=True, told=("rows that are not those of the examples in their order", "loop .* depends on the data", "'a' is not shown: .* one row per example")),
    "one expert": A(lambda: _moe(1), V, told=("fewer rows than there are examples", "loop .* depends on the data", "'experts.*one example at a time", "never reach layer 'experts")),
    "two experts": A(lambda: _moe(2), V, told=("fewer rows than there are examples", "loop .* depends on the data", "'experts.*one example at a time", "never reach layer 'experts")),
    "early exit": A(lambda: Net(_early, a=L(4, 4), easy=L(4, 2), b=L(4, 4), out=L(4, 2)), V, told=("run otherwise than before", "fewer rows than there are examples", "loop .* depends on the data", "'b.*one example at a time", "never reach layer 'b", "'out.*one example at a time", "never reach layer 'out")),
    "packed gru": A(lambda: Net(_packed, rnn=nn.GRU(3, 3, batch_first=True), out=L(3, 2)), PADDED, told=("rows that are not those of the examples in their order", "loop .* depends on the data", "'rnn' is not shown: it returns a tuple")),
    "packed lstm": A(lambda: Net(_packed, rnn=nn.LSTM(3, 3, batch_first=True), out=L(3, 2)), PADDED, told=("rows that are not those of the examples in their order", "loop .* depends on the data", "'rnn' is not shown: it returns a tuple")),
    "packed layers": A(lambda: Net(_packed_flat, a=L(3, 3), b=L(3, 3), out=L(3, 2)), PADDED, told=("rows that are not those of the examples in their order", "loop .* depends on the data", "'a' is not shown: .* one row per example", "'b' is not shown: .* one row per example")),
    "cells until the longest": A(lambda: Net(_until_longest, cell=nn.GRUCell(3, 3), out=L(3, 2)), PADDED, told=("run otherwise than before", "loop .* depends on the data", "'cell' is not shown: it is called . times")),
    "cells of those that go on": A(lambda: Net(_growing_fewer, cell=nn.RNNCell(3, 3), out=L(3, 2)), PADDED, told=("fewer rows than there are examples", "loop .* depends on the data", "'cell' is not shown: it is called . times")),
    "near neighbours": A(lambda: Net(_neighbours, a=L(3, 4), b=L(4, 3), out=L(3, 2)), STEPS),
    "graphs joined to one": A(lambda: Net(_graphs, a=L(3, 4), b=L(4, 4), edge=L(4, 4), out=L(4, 2)), PADDED, told=("rows that are not those of the examples in their order", "loop .* depends on the data", "'a' is not shown: .* one row per example", "'b' is not shown: .* one row per example", "'edge' is not shown: .* one row per example")),
    "unique words": A(lambda: Net(_unique, embed=nn.Embedding(8, 3, padding_idx=0), a=L(3, 4), out=L(4, 2)), WORDS, told=("made what examples share", "loop .* depends on the data", "'embed' is not shown: .* one row per example", "'a' is not shown: .* one row per example")),
    "halting": A(lambda: Net(_halting, inner=L(4, 3), halt=L(3, 1), step=L(3, 3), out=L(3, 2)), V, told=("'halt' is not shown: it is called 4 times", "'step' is not shown: it is called 4 times")),
    "one by one": A(lambda: Net(_one_by_one, a=L(4, 4), b=L(4, 4), out=L(4, 2)), V, told=("fewer rows than there are examples", "loop .* depends on the data", "'a' is not shown: .* one row per example", "'b' is not shown: .* one row per example")),
    "tokens left out": A(lambda: Net(_pruned_tokens, a=L(3, 4), score=L(4, 1), b=L(4, 3), out=L(3, 2)), STEPS),
    "equilibrium": A(lambda: Net(_equilibrium, inner=L(4, 3), again=L(3, 3), out=L(3, 2)), V, told=("run otherwise than before", "loop .* depends on the data", "'again' is not shown: it is called 19 times")),
    "buckets of lengths": A(lambda: Net(_buckets, a=L(3, 4), out=L(4, 2)), PADDED, told=("fewer rows than there are examples", "loop .* depends on the data", "'a.*one example at a time", "'out.*one example at a time")),
    "rows written over": A(lambda: Net(_written, a=L(4, 4), b=L(4, 4), out=L(4, 2)), V, told=("fewer rows than there are examples", "loop .* depends on the data", "'b.*one example at a time", "never reach layer 'b")),
    "rows written over too early": A(lambda: Net(lambda m, x: _written(m, x, torch.tanh), a=L(4, 4), b=L(4, 4), out=L(4, 2)), V, refused="Gradients of the network could not be taken .*; check that autograd can go back through its forward."),
    "segments": A(lambda: Net(_segments, a=L(3, 4), out=L(8, 2)), PADDED, told=("rows that are not those of the examples in their order", "loop .* depends on the data", "'a' is not shown: .* one row per example")),
    "tree": A(lambda: Net(_tree, leaf=L(3, 3), join=L(6, 3), out=L(3, 2)), numbers(4, 3), told=("'join' is not shown: it is called 3 times",)),
    "unpooled": A(lambda: Net(_unpooled, a=nn.Conv2d(2, 2, 3, padding=1), b=nn.Conv2d(2, 3, 3), out=L(3, 2)), IMAGES),
    "a layer that is rarely run": A(lambda: Net(_rare_layer, a=L(4, 4), b=L(4, 4), out=L(4, 2)), V, dual=True, told=("run otherwise than before", "loop .* depends on the data", "'b.*one example at a time", "never reach layer 'b")),
    "layers that change places": A(lambda: Net(_swapped, a=L(4, 4), b=L(4, 4), out=L(4, 2)), V),
    "large numbers alone": A(lambda: Net(_sparse, rows=P(4, 3), out=L(3, 2)), V, told=("rows that are not those of the examples in their order", "loop .* depends on the data")),
    "learnt padding": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.a(torch.where(seen(x)[..., None], x, m.pad))).flatten(1)), pad=P(3), a=L(3, 3), out=L(15, 2)), PADDED, told=("no layer rule for WhereBackward0",)),
    "hard attention": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.a(x)[torch.arange(len(x)), x.norm(dim=2).argmax(1)])), a=L(3, 4), out=L(4, 2)), STEPS),
    "look-up by size": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.table(torch.bucketize(x, torch.tensor([-1.0, 0, 1, 2]))).flatten(1))), table=nn.Embedding(5, 2), out=L(8, 2)), V),
    "last step": A(lambda: Net(lambda m, x: m.out(last(torch.tanh(m.embed(x)), x)), embed=nn.Embedding(8, 4), out=L(4, 2)), WORDS),
    "deep sets, masked": A(lambda: Net(lambda m, x: m.out(torch.tanh(m.a(x)).masked_fill(~seen(x)[..., None], -torch.inf).amax(1)), a=L(3, 4), out=L(4, 2)), PADDED),
    "encoder, padded": A(lambda: Net(lambda m, x: m.out(m.enc(m.embed(x), src_key_padding_mask=~seen(x))[:, 0]), embed=nn.Embedding(8, 4, padding_idx=0), enc=nn.TransformerEncoder(ENCODER(4, 2, 6, batch_first=True), 1, enable_nested_tensor=False), out=L(4, 2)), WORDS, told=("'enc.layers.0.self_attn' is not shown: it returns a tuple",)),
    "decoder, padded": A(lambda: Net(lambda m, x: m.out(m.dec(m.q.expand(len(x), -1, -1), m.embed(x), memory_key_padding_mask=~seen(x))[:, -1]), embed=nn.Embedding(8, 4), q=P(2, 4), dec=nn.TransformerDecoderLayer(4, 2, 6, batch_first=True), out=L(4, 2)), WORDS, told=("'dec.self_attn' is not shown: it returns a tuple", "'dec.multihead_attn' is not shown: it returns a tuple")),
    "numbers of no parameter": A(lambda: Net(_seldom, a=L(4, 2)), V, told=("run otherwise than before", "loop .* depends on the data", "'a' was run for one example", "never reach layer 'a")),
    "conditional field": A(lambda: Net(_field, a=L(3, 3), pairs=P(3, 3)), PADDED),
    "vector-quantised": A(lambda: Net(_quantised, a=L(4, 3), book=P(5, 3), out=L(3, 2)), V),
    "bags with offsets": A(lambda: Net(_with_offsets, bag=nn.EmbeddingBag(8, 3, mode="sum"), out=L(3, 2)), WORDS, told=("no layer rule for EmbeddingBagBackward0", "loop .* depends on the data")),
    "bags, sparse gradients": A(lambda: Net(_with_offsets, bag=nn.EmbeddingBag(8, 3, mode="sum", sparse=True), out=L(3, 2)), WORDS, told=("no layer rule for EmbeddingBagBackward0", "loop .* depends on the data")),
    "a row for the missing": A(lambda: Net(_dummy_row, a=L(4, 3), pad=P(1, 3), out=L(3, 2)), V, told=("rows that are not those of the examples in their order",)),
    "mean of the batch": A(lambda: Net(_company, a=L(4, 4), out=L(4, 2)), V, refused="batch it is in"),
    "a gate of few places": A(lambda: Net(_capacity, gate=L(4, 1), a=L(4, 4), out=L(4, 2)), V, refused="batch it is in"),
}  # fmt: skip
