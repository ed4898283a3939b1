"""What a delivery says, from its bytes alone: pure, without I/O."""
