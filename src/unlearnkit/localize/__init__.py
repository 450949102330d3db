"""Which parameters a forget set lives in: masks, found by several criteria."""
