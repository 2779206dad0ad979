"""The choices that flags offer for the optimizer and the learning rate, without TensorFlow."""

OPTIMIZERS = ("momentum", "nesterov", "adamw", "lars")  # the keys of training.graph.optimizer.RULES
SCHEDULES = ("piecewise", "multistep", "polynomial", "cosine", "constant")  # of the learning rate
