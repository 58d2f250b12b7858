"""The models of one server: found, loaded, exchanged while they serve, unloaded."""
