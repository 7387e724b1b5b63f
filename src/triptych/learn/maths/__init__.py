"""Pure functions of tensors: one formula is one function, one tag, one line of code.

Each returns one value per example, summed over dimensions and never averaged; likelihood terms are in nats.
Axis letters: B batch, T query time, S key time, D dimensions of one example or of one head, Z latent, V
vocabulary, N heads, K importance samples, P projections.
"""
