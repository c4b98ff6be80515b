"""A real Synapse as the peer of a Chappe server."""
