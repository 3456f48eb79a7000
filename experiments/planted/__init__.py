"""Small models in which the truth is known, because it was put there."""
