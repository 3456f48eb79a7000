"""Units of a concept rather than of a language: detectors, experts, keys and values, and what holding them does."""
