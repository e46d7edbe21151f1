"""The feed-forward part of a block: the kinds that a recipe can name, and what each keeps for its backward pass.

Shapes: N positions of all rows, D d_model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from shortrun.model.kernels import squared_relu_mlp
from shortrun.model.layer_scale import LayerScale, scaled, scaled_linear
from shortrun.recipe import ModelConfig


class MLP(nn.Module):
    """Two linear maps with an activation between, four times as wide inside."""

    def __init__(self, config: ModelConfig, activation: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(config.d_model, 4 * config.d_model, bias=config.bias),
            activation,
            nn.Linear(4 * config.d_model, config.d_model, bias=config.bias),
        )

    @property
    def to_inner(self) -> nn.Linear:
        """The map that reads from the residual stream."""
        linear: nn.Linear = self.net[0]  # type: ignore[assignment]
        return linear

    @property
    def to_stream(self) -> nn.Linear:
        """The map that writes to the residual stream."""
        linear: nn.Linear = self.net[2]  # type: ignore[assignment]
        return linear

    def forward(self, x_ND: Tensor, scale: LayerScale | None = None) -> Tensor:
        if isinstance(self.net[1], SquaredReLU):
            up, down = self.to_inner, self.to_stream
            return squared_relu_mlp(x_ND, up.weight, up.bias, scaled(down.weight, scale), scaled(down.bias, scale))
        return scaled_linear(self.to_stream, scale, self.net[1](self.to_inner(x_ND)))


class SquaredReLU(nn.Module):
    """The square of a ReLU (So et al. 2021, arXiv 2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class SwiGLU(nn.Module):
    """SiLU(gate) * value, 8/3 times as wide inside, to the next multiple of 8 (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = -(-config.d_model * 8 // 3 // 8) * 8
        self.gate_value = nn.Linear(config.d_model, 2 * width, bias=config.bias)
        self.to_stream = nn.Linear(width, config.d_model, bias=config.bias)

    def forward(self, x_ND: Tensor, scale: LayerScale | None = None) -> Tensor:
        gate, value = self.gate_value(x_ND).chunk(2, dim=-1)
        return scaled_linear(self.to_stream, scale, F.silu(gate) * value)


@dataclass(frozen=True)
class Kind:
    """All there is to know of one kind."""

    make: Callable[[ModelConfig], MLP | SwiGLU]
    kept: float
    """What one position keeps in memory until its backward pass, in units of d_model."""


KINDS = {
    "gelu": Kind(lambda config: MLP(config, nn.GELU()), kept=8),
    "relu2": Kind(lambda config: MLP(config, SquaredReLU()), kept=8),
    "swiglu": Kind(SwiGLU, kept=8),
}
"""gelu: Hendrycks & Gimpel 2016, arXiv 1606.08415."""
