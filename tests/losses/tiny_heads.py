"""A head for tests, with its inputs and its config in one call."""

from losses.class_centres import ONE_PART, HeadConfig, HeadInputs, class_centres_loss


def head_of(embeddings_ND, labels_N, identities, parts=ONE_PART, step=None, drawn=None, **config):
    """HeadOutputs; config: the other fields of a HeadConfig."""
    inputs = HeadInputs(embeddings_ND, labels_N, step, drawn)
    return class_centres_loss(inputs, HeadConfig(identities, **config), parts)
