"""int8 with BERT's accuracy: calibration, exact transforms before quantizing, mixed precision by search."""
