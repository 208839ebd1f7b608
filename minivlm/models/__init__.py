"""One file per surveyed model, named as its notebook: only what is new in it."""
