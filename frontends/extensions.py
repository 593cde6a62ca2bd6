"""The protocol extensions that this server has, in the order in which its metadata lists them."""

EXTENSIONS = ("model_configuration", "binary_tensor_data", "parameters", "statistics")
