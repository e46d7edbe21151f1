"""torch.compile for the model of a run, tried before the first step, so that what it can't do shows at once.

It is tried in each process before the model is spread over them.
"""

from __future__ import annotations

import torch

from shortrun.errors import UserError, first_line
from shortrun.recipe import Recipe
from shortrun.tokens.rows import Rows
from shortrun.train.objective import Objective


def compile_model(objective: Objective, recipe: Recipe, device: torch.device, rows: int) -> list[str]:
    """Compiles the way from tokens to hidden states (the loss over logits stays as it is) and tries it on `rows` rows.

    Returns what a person should know. Where it can't be compiled, "auto" says why and goes on without; "on" raises
    UserError.
    """
    plain = objective.run
    objective.run = torch.compile(plain)
    x_BT = torch.zeros((rows, recipe.batches.block_size), dtype=torch.int64, device=device)
    try:
        objective.train()
        objective(Rows.of(x_BT, x_BT))[0].backward()
    except Exception as error:  # torch raises a dozen kinds: no compiler, no Triton, an operator it can't compile, ...
        objective.run = plain
        reason = first_line(error)
        if recipe.train.compile == "on":
            raise UserError(f'train.compile = "on", but torch.compile can\'t: {reason}') from None
        return [f"torch.compile can't here, so training goes on without it: {reason}"]
    finally:
        objective.zero_grad(set_to_none=True)
    return ["The model is compiled by torch.compile"]
