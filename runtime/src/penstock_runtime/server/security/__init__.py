"""Who the server is and who may speak to it: TLS and tokens, read anew when their files change."""
