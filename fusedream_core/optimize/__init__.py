"""Paper section 3.2, Algorithm 1: over-parameterised optimisation of the basis."""
