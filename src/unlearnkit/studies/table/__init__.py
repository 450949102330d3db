"""Tables of studies: results beside retrained models, as text and page."""
