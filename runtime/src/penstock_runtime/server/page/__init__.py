"""The page for people on the admin port."""
