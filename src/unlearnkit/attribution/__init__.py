"""Attribution: how the outputs of a model change when training rows are left out."""
