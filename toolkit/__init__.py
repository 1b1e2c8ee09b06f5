"""EdgeLSTM's toolkit: the command line, training, and the train → export → verify pipeline."""
