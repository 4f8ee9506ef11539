"""Networks: one file per architecture family."""
