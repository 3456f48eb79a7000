"""What the stream says at each depth, and in which language: the logit lens, a tuned lens, and words under them."""
