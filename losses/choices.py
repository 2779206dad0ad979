"""The choices that flags offer for losses, for help pages that load no TensorFlow."""

# The keys of losses.face_losses.LOSSES.
LOSS_NAMES = (
    "softmax",
    "arcface",
    "cosface",
    "sphereface",
    "combined",
    "adaface",
    "curricularface",
    "magface",
)
PAST_PI = ("line", "none")  # of the target cosine where angle + margin passes pi
MARGIN_GRADIENTS = ("exact", "straight_through")
