"""The tables of README and docs, each from its file in docs/measured/."""
