"""Plain loops of published unlearning algorithms, as one writes them for one network."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from unlearnkit.core.runtime import Runtime

Named = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """What both sides of a comparison are run with."""

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    epochs: int = 5
    batch_size: int = 64
    forget_epochs: int = 3
    """SCRUB: epochs, from the first, that begin with a pass over the forget rows (msteps)."""

    decay_after: int = 3
    """SCRUB: epochs after which the rate is a tenth."""

    retain_loss: float = 1.0
    retain_divergence: float = 0.5
    temperature: float = 4.0
    selection: float = 1.0
    """SSD: low enough that weights are dampened."""

    dampening: float = 1.0
    salient: float = 0.5
    """SalUn: share of the scalars that may move."""

    critical: float = 0.3
    """DEL: share of the scalars that are reset."""


@dataclass
class RowPasses:
    """Rows forward and backward, and rows that were only read."""

    backward: int
    read: int


def uniform_wrong(y: Tensor) -> Tensor:
    """Return classes of ten, drawn uniformly from those that are not the given ones."""
    return (y + torch.randint(1, 10, y.shape)) % 10


def initialised(model: nn.Module) -> nn.Module:
    """Return a copy with each layer's initial values drawn anew."""
    model = copy.deepcopy(model)
    for m in model.modules():
        if isinstance(m, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
            m.reset_parameters()
    return model


@dataclass(frozen=True)
class Loops:
    """The loops over some rows: each takes a trained model and returns a changed copy.

    Rows come from a ``DataLoader`` over a ``TensorDataset``, in the orders that our streams give,
    so that both sides can end alike. Nothing is printed or evaluated meanwhile.
    """

    x: Tensor
    y: Tensor
    drop: Tensor
    keep: Tensor
    settings: Settings
    wrong: Callable[[Tensor], Tensor] = uniform_wrong
    untrained: Callable[[nn.Module], nn.Module] = initialised

    def loader(self, rows: Tensor, stream: str | None = None) -> "Loader":
        """Return the batches of some rows, in order or shuffled."""
        data = TensorDataset(self.x[rows], self.y[rows])
        size = self.settings.batch_size
        if stream is None:
            return DataLoader(data, batch_size=size)
        order = RandomSampler(data, generator=Runtime().rng(stream))
        return DataLoader(data, batch_size=size, sampler=order)

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """Return the optimiser that the published scripts use."""
        s = self.settings
        return torch.optim.SGD(
            model.parameters(), lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay
        )

    def scrub(self, model: nn.Module) -> nn.Module:
        """Max steps away from the teacher, min steps towards it (Kurmanji et al. 2023, eq. 4)."""
        s = self.settings
        teacher, student = copy.deepcopy(model).eval(), copy.deepcopy(model)
        opt = self.optimizer(student)

        def divergence(out: Tensor, x: Tensor) -> Tensor:
            with torch.no_grad():
                goal = functional.softmax(teacher(x) / s.temperature, dim=1)
            own = functional.log_softmax(out / s.temperature, dim=1)
            return functional.kl_div(own, goal, reduction="batchmean") * s.temperature**2

        student.train()
        for epoch in range(s.epochs):
            for group in opt.param_groups:
                group["lr"] = s.lr * 0.1 ** (epoch // s.decay_after)
            if epoch < s.forget_epochs:
                for x, _ in self.loader(self.drop, f"scrub/forget/{epoch}"):
                    loss = -divergence(student(x), x)
                    opt.zero_grad()
                    loss.backward()
                    opt.step()
            for x, y in self.loader(self.keep, f"retain/{epoch}"):
                out = student(x)
                loss = s.retain_loss * functional.cross_entropy(out, y)
                loss = loss + s.retain_divergence * divergence(out, x)
                opt.zero_grad()
                loss.backward()
                opt.step()
        return student

    def ssd(self, model: nn.Module) -> nn.Module:
        """Dampen what matters more to forget rows (Foster et al. 2024, equations 3 and 4)."""
        s, model = self.settings, copy.deepcopy(model)
        order = torch.randperm(len(self.y), generator=Runtime().rng("ssd/mixed"))
        whole = self.importance(model, self.loader(torch.cat([self.drop, self.keep])[order]))
        forget = self.importance(model, self.loader(self.drop))
        with torch.no_grad():
            for name, p in model.named_parameters():
                hit = forget[name] > s.selection * whole[name]
                scale = s.dampening * whole[name] / forget[name]
                p[hit] = p[hit] * scale[hit].clamp(max=1)
        return model

    def importance(self, model: nn.Module, loader: "Loader") -> Named:
        """Return the mean square of the batches' gradients, by parameter name."""
        model.eval()
        total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
        for x, y in loader:
            model.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            for name, p in model.named_parameters():
                if p.grad is not None:
                    total[name] += p.grad**2
        return {n: t / len(loader) for n, t in total.items()}

    def gradient(self, model: nn.Module) -> Named:
        """Return the gradient of the forget rows, added up over batches, by parameter name."""
        model.eval()
        total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
        for x, y in self.loader(self.drop):
            model.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            for name, p in model.named_parameters():
                if p.grad is not None:
                    total[name] += p.grad
        return total

    def salun(self, model: nn.Module) -> nn.Module:
        """Relabel under a mask of the largest gradients (Fan et al. 2024, equations 3 and 5).

        Scalars outside the mask are set back after each step, as the code does since 2026.
        """
        s, model = self.settings, copy.deepcopy(model)
        mask = largest({n: g.abs() for n, g in self.gradient(model).items()}, s.salient)
        start = {n: p.detach() * (1 - mask[n]) for n, p in model.named_parameters()}
        opt = self.optimizer(model)
        model.train()
        for epoch in range(s.epochs):
            for x, y in self.loader(self.drop, f"relabel/forget/{epoch}"):
                self.masked_step(model, opt, x, self.wrong(y), mask, start)
            for x, y in self.loader(self.keep, f"retain/{epoch}"):
                self.masked_step(model, opt, x, y, mask, start)
        return model

    def localized(self, model: nn.Module) -> nn.Module:
        """Reset the scalars that matter, train only them (Torkzadehmahani et al. 2025, DEL)."""
        s, model = self.settings, copy.deepcopy(model)
        found = self.gradient(model)
        with torch.no_grad():
            scores = {n: (p * found[n]).abs() for n, p in model.named_parameters()}
            mask, fresh = (
                largest(scores, s.critical),
                dict(self.untrained(model).named_parameters()),
            )
            for name, p in model.named_parameters():
                p.copy_((1 - mask[name]) * p + mask[name] * fresh[name])
        head = list(mask)[-2:]  # weight and bias of the linear layer at the end
        mask.update({n: torch.ones_like(mask[n]) for n in head})
        start = {n: p.detach() * (1 - mask[n]) for n, p in model.named_parameters()}
        opt = self.optimizer(model)
        model.train()
        for epoch in range(s.epochs):
            for x, y in self.loader(self.keep, f"retain/{epoch}"):
                self.masked_step(model, opt, x, y, mask, start)
        return model

    def masked_step(
        self,
        model: nn.Module,
        opt: torch.optim.Optimizer,
        x: Tensor,
        y: Tensor,
        mask: Named,
        start: Named,
    ) -> None:
        """Take a step in which only the scalars of a mask move."""
        loss = functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        for name, p in model.named_parameters():
            if p.grad is not None:
                p.grad *= mask[name]
        opt.step()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.mul_(mask[name]).add_(start[name])


Loader = DataLoader[tuple[Tensor, ...]]


def largest(scores: Named, share: float) -> Named:
    """Return 1 for the share of all scalars with the largest scores, else 0, by name."""
    flat = torch.cat([t.flatten() for t in scores.values()]).float()
    mask = torch.zeros_like(flat)
    mask[flat.topk(int(share * len(flat))).indices] = 1
    parts = mask.split([t.numel() for t in scores.values()])
    return {n: m.view(t.shape).to(t.dtype) for (n, t), m in zip(scores.items(), parts, strict=True)}
