"""The HTTP service of a ledger: requests come in, states and certificates go out."""
