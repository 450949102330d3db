"""Tables of studies: methods compared with retrained models."""
