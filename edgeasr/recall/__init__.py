"""Associative recall over long distances: the hierarchy beside recurrent and convolutional networks."""
