"""The strong audit: attacks on single records with ensembles of models."""
