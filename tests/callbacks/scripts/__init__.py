"""Training scripts that know nothing of us, after the examples of Lightning and of Fabric: a file for the weights is
their only argument."""
