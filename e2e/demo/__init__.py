"""The demo behind `make demo`: a good model is promoted, bad ones are rolled back, on a real cluster."""
