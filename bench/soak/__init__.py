"""A long run under full load, the model exchanged all the while: does anything grow, does anything fail?"""
