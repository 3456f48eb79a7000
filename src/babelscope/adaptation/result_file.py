"""The file that a training run leaves beside what it trained; a module of its own, so that its name loads no torch."""

RESULT = "result.json"
"""Settings, gain and harm, and where the text came from."""
