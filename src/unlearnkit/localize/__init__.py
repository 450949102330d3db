"""Localisation: masks of the parameters that matter to a forget set."""
