"""The task of a model: how its outputs become predictions, and which loss fits them."""
