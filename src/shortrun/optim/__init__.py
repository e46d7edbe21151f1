"""How the weights move: optimizers and learning rate schedules."""
