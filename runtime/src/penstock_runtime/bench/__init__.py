"""`penstock-runtime bench`: how fast a server of the protocol answers."""
