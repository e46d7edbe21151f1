"""Moves matrices by the orthogonalised momentum of their gradient, many matrices at a time, in a precision of choice.

Does what `torch.optim.Muon` does, but for three things. It orthogonalises in float32 where that is asked for, because
bfloat16 is slow on a CPU that has no instructions for it. It takes apart what is stacked in one weight (query, key and value),
because each is a linear map of its own. It takes all matrices of a shape in one batched product, because that is faster.

Multiplies a tall matrix from the right instead of turning it, because two strided copies cost as much as a product.

Shapes: N matrices of R rows and C columns, S the smaller of the two; M rows of all N, one matrix below the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
"""Newton-Schulz coefficients: singular values from 0.005 up to 1 are between 0.68 and 1.16 after five steps."""
EPS = 1e-7
"""Least norm that is divided by, so a gradient of zeros stays zeros."""


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): Nesterov momentum, orthogonalised, and decoupled decay.

    params: matrices, each with the number of equally tall matrices that are stacked along its rows: 3 for query, key and
    value in one weight, 1 for a plain one. dtype: what Newton-Schulz computes in; momentum has the gradient's type. The
    learning rate of tall matrices grows with sqrt(R / C), as in torch's. Raises ValueError for a parameter that is no
    matrix and for one whose rows the number does not divide.
    """

    def __init__(
        self,
        params: Iterable[tuple[nn.Parameter, int]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        ns_steps: int = 5,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        pairs = list(params)
        for parameter, stacked in pairs:
            if parameter.ndim != 2:
                raise ValueError(f"Muon moves matrices, and a parameter has the shape {list(parameter.shape)}")
            if stacked < 1 or parameter.shape[0] % stacked:
                raise ValueError(f"{parameter.shape[0]} rows are not {stacked} equally tall matrices")
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1:
            raise ValueError(f"lr = {lr}, weight_decay = {weight_decay}, momentum = {momentum}: out of range")
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "ns_steps": ns_steps}
        group: dict[str, Any] = {"params": [parameter for parameter, _ in pairs], "stacks": [n for _, n in pairs]}
        # a type's name, not the type: groups are saved, and hold only what JSON knows
        super().__init__([group], {**settings, "dtype": str(dtype).removeprefix("torch.")})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves every parameter that has a gradient; returns what `closure` does, called first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for parameter, stacked in zip(group["params"], group["stacks"], strict=True):
                if parameter.grad is not None:
                    alike[parameter.shape[0] // stacked, parameter.shape[1]].append(parameter)
            for (R, C), parameters in alike.items():
                self._move(parameters, R, C, group)
        return loss

    def _move(self, parameters: list[nn.Parameter], R: int, C: int, group: dict[str, Any]) -> None:
        heights = [parameter.shape[0] for parameter in parameters]
        x_MC = torch.empty(sum(heights), C, dtype=getattr(torch, group["dtype"]), device=parameters[0].device)
        for rows, parameter in zip(x_MC.split_with_sizes(heights), parameters, strict=True):
            rows.copy_(self._momentum(parameter, group["momentum"]))  # Newton-Schulz writes here, never in the momentum
        x_MC = orthogonalise(x_MC.view(-1, R, C), group["ns_steps"]).view(-1, C)
        rate = group["lr"] * sqrt(max(1, R / C))
        for rows, parameter in zip(x_MC.split_with_sizes(heights), parameters, strict=True):
            # one parameter after the other: torch._foreach_mul_ over 12 of 256 x 1024 took 0.8 ms in all and this 0.6
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(rows, alpha=-rate)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Remembers a parameter's gradient; returns Nesterov's look ahead."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        return gradient.lerp(state["momentum_buffer"].lerp_(gradient, 1 - momentum), momentum)


def orthogonalise(x_NRC: Tensor, steps: int) -> Tensor:
    """Brings all singular values of each matrix near 1, and keeps its singular vectors. Overwrites what it is given.

    Five steps at 2 threads, batched / matrix by matrix, in ms: 18 of 256 x 256, float32 27 / 28, bfloat16 with AMX 5.5 /
    15; 12 of 256 x 1024, 51 / 57 and 9 / 21. Without AMX (ONEDNN_MAX_CPU_ISA) bfloat16 takes longer than float32: 6 of
    256 x 1024 take 41 with AVX512-BF16 and 117 with neither, against 25.
    """
    tall, S = x_NRC.shape[1] > x_NRC.shape[2], min(x_NRC.shape[1:])
    x_NRC.div_(torch.linalg.vector_norm(x_NRC, dim=(1, 2), keepdim=True).clamp_(min=EPS))
    gram_NSS, factor_NSS = x_NRC.new_empty(2, len(x_NRC), S, S)
    # out= must be contiguous: into a transposed one in bfloat16, baddbmm took 25 s instead of 0.04
    next_NRC = torch.empty_like(x_NRC, memory_format=torch.contiguous_format)
    for _ in range(steps):
        torch.bmm(*((x_NRC.mT, x_NRC) if tall else (x_NRC, x_NRC.mT)), out=gram_NSS)
        torch.baddbmm(gram_NSS, gram_NSS, gram_NSS, beta=CUBIC, alpha=QUINTIC, out=factor_NSS)
        torch.baddbmm(x_NRC, *((x_NRC, factor_NSS) if tall else (factor_NSS, x_NRC)), beta=LINEAR, out=next_NRC)
        x_NRC, next_NRC = next_NRC, x_NRC
    return x_NRC
