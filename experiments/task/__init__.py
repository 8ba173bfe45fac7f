"""What is asked of a model: how its outputs become answers, and which loss fits them."""
