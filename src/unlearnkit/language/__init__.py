"""Language models: losses, metrics, attacks and made data."""
