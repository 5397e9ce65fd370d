"""The fitting core: grids of kinks, convex programmes, curves."""
