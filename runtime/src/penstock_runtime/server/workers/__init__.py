"""Several processes behind one port, for models too small for threads: started, watched, summed up, stopped."""
