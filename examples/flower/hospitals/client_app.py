"""Clients: ordinary training, and a mod that answers messages of unlearning."""

import torch
from flwr.clientapp import ClientApp

from hospitals.task import hospital
from unlearnkit.flower import train_function, unlearning_mod

torch.set_num_threads(1)
app = ClientApp(mods=[unlearning_mod(hospital)])
app.train()(train_function(hospital))
