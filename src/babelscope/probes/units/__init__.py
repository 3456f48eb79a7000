"""Heads, experts and neurons by language: where they act, what role they play, what breaks without them."""
