"""Built-in problems on real data, one file each; nothing here lists them."""
