"""Which heads, neurons and positions carry an answer: patching, path patching, circuits, what languages share."""
