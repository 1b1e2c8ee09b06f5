"""EdgeLSTM's devices: what is known of the targets, and what is put on them."""
