"""What an audit found, as values, text, JSON and a page."""
