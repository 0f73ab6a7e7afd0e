"""int8 with BERT's accuracy: calibration, exact transforms before quantising, mixed precision by search."""
