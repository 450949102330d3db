"""Reports of audits, as values, text, JSON and page."""
